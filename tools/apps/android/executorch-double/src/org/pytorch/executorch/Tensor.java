package org.pytorch.executorch;

import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;

/** A double of the runtime's class that takes the buffers which it takes, and keeps no copy either. */
public final class Tensor {
    private final LongBuffer longs;
    private final FloatBuffer floats;
    private final long[] shape;

    private Tensor(LongBuffer longs, FloatBuffer floats, long[] shape) {
        this.longs = longs;
        this.floats = floats;
        this.shape = shape.clone();
    }

    public static Tensor fromBlob(LongBuffer data, long[] shape) {
        check(data.isDirect(), data.order(), data.capacity(), shape);
        return new Tensor(data, null, shape);
    }

    public static Tensor fromBlob(FloatBuffer data, long[] shape) {
        check(data.isDirect(), data.order(), data.capacity(), shape);
        return new Tensor(null, data, shape);
    }

    public long[] shape() {
        return shape.clone();
    }

    public void copyDataInto(FloatBuffer target) {
        if (floats == null) {
            throw new IllegalStateException("Tensor cannot copy data into FloatBuffer.");
        }
        floats.rewind();
        target.put(floats);
    }

    /** Of the double alone: what the runtime's native part reads. */
    public LongBuffer longs() {
        return longs;
    }

    private static void check(boolean isDirect, ByteOrder order, int capacity, long[] shape) {
        long size = 1;
        for (long each : shape) {
            size *= each;
        }
        if (!isDirect || order != ByteOrder.nativeOrder() || size != capacity) {
            throw new IllegalArgumentException("Inconsistent data capacity, not direct or not native");
        }
    }
}
