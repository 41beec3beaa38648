"""Texts that two tokenizers encode differently unless they are the same: scripts, blanks, odd ends.

It is data; it knows no tokenizer.
"""

from __future__ import annotations

TORTURE: tuple[str, ...] = (
    "",
    " ",
    "   ",
    "Hello world",
    " Hello  world   of \t blanks \n and\r\n\n\nlines ",
    "The quick brown fox, aged 42, wasn't jumping; it'd rather they'LL jump. I'm you're 'tis ''s",
    "1 12 123 1234 12345678901234567890 3.14e-10 1,000,000 ½ ² Ⅷ ٣ 一二三",
    "def f(x):\n    return {'a': x[0]}  # ??!!\n\n\n\n\tif __name__ == '__main__':\n        pass\n",
    'http://www.example.org/a_b-c?d=%20&e=f#g  <div class="x">&amp;</div> \\frac{1}{2} $x^2$',
    "äöüß ÀÉÎ ñ ç ø å ł ž ğ Ἑλλάς Привет, мир! Ёлка їжак",
    "中文字符測試。「日本語」カタカナひらがな 한국어 조합 ㍿ 𠮷野家",
    "กำลังทดสอบภาษาไทยที่ไม่มีช่องว่าง ๑๒๓๔ น้ำ हिन्दी में पाठ বাংলা தமிழ்",
    "שָׁלוֹם עולם \u202bمرحبا بالعالم\u202c ١٢٣٤ \u200f(abc)",  # noqa: RUF001
    "Z̸̡̛a̶͘l̵g̷o é e\u0301 \ufb01 ǆ \u0301 a\u0308\u0323 ｆｕｌｌ ｗｉｄｔｈ ① ℌ",  # noqa: RUF001
    "😀😃 👍🏽 ☎️ 🇩🇪🇫🇷 👨‍👩‍👧‍👦 👩🏿‍🚀 क्‍ष \u200d\u200c\u200b",
    "".join(map(chr, range(1, 32))) + "\x7f\x80\x85\x9f\ufeff\ufffd\uffff\U0010ffff",
    "a\u2028b\u2029c\x0bd\x0ce\xa0f\u3000\u3000g\u1680h\u2003i",
    "a  b   c    d     e\t\tf" + " " * 40 + "h" + "\t" * 20 + "\n" * 10,
    " leading",
    "trailing ",
    "  two before, two after  ",
    "\n newline first",
    "\u2581 the letter for a blank \u2581\u2581x",
    "<s>typed</s> <unk> <pad> <0x0A> [INST] <<SYS>> [/INST] <|im_start|>user <|eot_id|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!!!!!!!!!!!!!----------=========_______",
    "ЖжЖж中a中a中 1a1a1a .,.,., xXxXxX QQQQ zzzz qu qu qu",
)
