package org.llamaexport.app

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup

/** A row of views that goes on in a new line where it is full, from either side. */
class FlowLayout(context: Context, attributes: AttributeSet? = null) : ViewGroup(context, attributes) {
    private val gap = (context.resources.displayMetrics.density * GAP_DP).toInt()

    override fun onMeasure(widthMeasureSpec: Int, heightMeasureSpec: Int) {
        val width = MeasureSpec.getSize(widthMeasureSpec)
        val inner = MeasureSpec.makeMeasureSpec(width, MeasureSpec.AT_MOST)
        val free = MeasureSpec.makeMeasureSpec(0, MeasureSpec.UNSPECIFIED)
        shown().forEach { it.measure(inner, free) }
        setMeasuredDimension(width, place(width) { _, _, _ -> })
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val width = right - left
        place(width) { view, x, y ->
            val begin = if (layoutDirection == LAYOUT_DIRECTION_RTL) width - x - view.measuredWidth else x
            view.layout(begin, y, begin + view.measuredWidth, y + view.measuredHeight)
        }
    }

    private fun place(width: Int, put: (View, Int, Int) -> Unit): Int {
        var x = 0
        var y = 0
        var lineHeight = 0
        for (view in shown()) {
            if (x > 0 && x + view.measuredWidth > width) {
                x = 0
                y += lineHeight
                lineHeight = 0
            }
            put(view, x, y)
            x += view.measuredWidth + gap
            lineHeight = maxOf(lineHeight, view.measuredHeight)
        }
        return y + lineHeight
    }

    private fun shown(): List<View> =
        (0 until childCount).map(::getChildAt).filter { it.visibility != View.GONE }

    private companion object {
        const val GAP_DP = 8
    }
}
