"""Texts: a little training corpus, and the strings that every tokenizer is tried on."""

import argparse
import heapq
import inspect
import random
import textwrap

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and then it's time they'd rest; we'll see.",
    "I'M SURE YOU'LL SAY IT'S FINE, BUT THEY'VE SAID WE'RE DONE AND I'D AGREE.",
    "In 2024 there were 1234567 requests at 3.14159 per second, 99.95% of them under 10ms.",
    "def forward(self, x):\n    return self.down(self.act(self.gate(x)) * self.up(x))\n",
    "for (int i = 0; i < n; ++i) {\n\ty[i] += a * x[i];\t/* axpy */\n}\r\n",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name ORDER BY 2 DESC;",
    '{"model": "tiny", "layers": [1, 2, 3], "tied": true, "path": "C:\\\\tmp\\\\x"}',
    "https://example.org/a/b?c=d&e=%20f#top user@example.com ../relative/path.txt",
    "Der Übergang führt über große Straßen; Größe, Maß, Äpfel, Öl und Füße.",
    "Où est l'école ? C'est déjà l'été, ça coûte 12,50 € — n'est-ce pas ?",
    "El niño comió piña; ¿dónde está la cigüeña? ¡Qué día más extraño!",
    "Ο γρήγορος λύκος πηδά πάνω από το φράχτη. Καλημέρα κόσμε, τι κάνεις;",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку. Привет, мир!",
    "敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园吧！一二三四五。",
    "素早い茶色の狐がのろまな犬を飛び越える。カタカナとひらがなと漢字。",
    "다람쥐 헌 쳇바퀴에 타고파. 안녕하세요 세계, 오늘은 날씨가 좋네요.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول. مرحبا بالعالم ١٢٣٤٥٦",
    "השועל החום המהיר קופץ מעל הכלב העצלן. שָׁלוֹם עוֹלָם",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। नमस्ते दुनिया १२३",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ สวัสดีชาวโลก ๑๒๓",
    "Xin chào thế giới, tiếng Việt có nhiều dấu: ấ ầ ẩ ẫ ậ ở ữ.",
    "😀 😃 👍 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ✅ → ← ≤ ≥ ∑ ∫ √ α β γ",
]

BASIC = [
    *("", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", " \n", "\n ", "  \n  ", " \t \n \r\n "),
    *("a", "A", "é", "ß", "ñ", "中", "😀", "0", "7", ".", "'", '"', "\\", "/", "_", "-", "▁", "Ġ", "Ċ", "#"),
    *("hello", "Hello", "HELLO", " hello", "  hello", "hello ", "hello  ", "hello world", "hello  world"),
    *("hello   world", "hello\nworld", "hello\r\nworld", "hello\n\n\nworld", "hello\t\tworld", "a b c d e f"),
    *("Hello, world!", "Hello,world!", "Hello... world?!", "(hello) [world] {x}", "a.b.c", "a--b", "a_b_c", "__init__"),
    *(
        "   leading",
        "trailing   ",
        "\n\nleading",
        "trailing\n\n",
        "a \n b",
        "a  \n\n  b",
        "x\n   y\n\tz",
        "if x:\n        y = 1",
    ),
    *("▁", "▁▁", "a▁b", "▁hello", "hello▁world", " ▁ ", "Ġhello", "<0x41>", "<0xE4>", "<unk>", "<s>", "</s>"),
]

CONTRACTIONS = [
    *("it's", "it'S", "IT'S", "we're", "WE'RE", "they've", "I'm", "I'M", "you'll", "YOU'LL", "he'd", "don't", "DON'T"),
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'ſ", "a'ſ", "it'ſ fine", "'st", "'re's", "''s", "x'y"),
    *("it’s", "we’re", "l'été", "d'Ö", "O'Neill", "rock'n'roll", "'sup", "y'all'd've", "'sß", "'LLama", "'ll\n"),
]

NUMBERS = [
    *(
        "1",
        "12",
        "123",
        "1234",
        "12345",
        "123456",
        "1234567",
        "0.5",
        "3.14159",
        "-1",
        "+2",
        "1e10",
        "0x1F",
        "1,000,000",
    ),
    *(
        "1 2 3",
        "2024-01-31",
        "12:34:56",
        "v1.2.3",
        "a1b2c3",
        "1a",
        "a1",
        "100%",
        "$9.99",
        "№5",
        "½",
        "²",
        "x²",
        "Ⅷ",
        "①",
    ),
    *("١٢٣٤", "१२३४", "๑๒๓๔", "１２３", "𝟘𝟙𝟚𝟛", "1２3", "007", "1 000 000", "1234567890" * 6, "9" * 50),
]

SCRIPTS = [
    *(
        "你好",
        "你好，世界！",
        "今天是2024年1月31日。",
        "中文English混合text",
        "漢字ひらがなカタカナ",
        "東京タワー3個",
        "ﾊﾝｶｸ",
        "ー",
        "々",
    ),
    *("안녕하세요", "한국어 text 123", "각", "가각", "ㄱㄴㄷ"),
    *(
        "مرحبا",
        "مرحبا بالعالم",
        "العَرَبِيَّة",
        "لا",
        "ﷺ",
        "שלום",
        "שָׁלוֹם",
        "עברית 123",
        "नमस्ते",
        "क्षत्रिय",
        "हिन्दी में",
        "ज़",
        "क़",
    ),
    *("สวัสดี", "ภาษาไทย", "น้ำ", "Привет", "ПРИВЕТ мир", "Ёлка ёлка", "Ελληνικά", "ΟΔΟΣ οδός", "ά", "Ἀθῆναι"),
    *(
        "àéîõü",
        "ÀÉÎÕÜ",
        "Straße STRASSE ẞ",
        "ĳ Ĳ ŉ ǅ ǆ",
        "İstanbul ıI",
        "ﬁ ﬂ ﬃ ﬆ",
        "Ａｂｃ　ｄｅ",
        "Tiếng Việt",
        "Łódź",
        "naïve café",
        "Å Å Å",
    ),
    *("ᏣᎳᎩ", "Ꭰꭰ", "𐐀𐐨", "ქართული", "հայերեն", "አማርኛ", "தமிழ்", "বাংলা", "ລາວ", "မြန်မာ", "ខ្មែរ", "བོད་", "ᠮᠣᠩᠭᠣᠯ"),
]

COMBINING = [
    *(
        "e\u0301",
        "cafe\u0301",
        "a\u0308o\u0308u\u0308",
        "A\u030a",
        "n\u0303",
        "o\u0302\u0301",
        "o\u0323\u0302",
        "q\u0307\u0323",
    ),
    *(
        "\u0301",
        " \u0301",
        "a\u0301\u0301\u0301",
        "\u1112\u1161\u11ab",
        "\u0915\u093c",
        "\u0958",
        "\u2126",
        "\u212b",
        "\u1e9b\u0323",
    ),
    *(
        "Z\u0351\u036b\u0343\u036aA\u0301L",
        "\u0344",
        "x\u0338=",
        "\u2adc",
        "\ufb1d",
        "\u0f73",
        "1\u20e3",
        "e\u0301's",
        "i\u0307",
    ),
]

EMOJI = [
    *(
        "👍",
        "👍🏽",
        "👩‍💻",
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇩🇪🇫🇷",
        "❤️",
        "❤",
        "☺️",
        "1️⃣",
        "😀😀😀",
        "hi😀there",
        " 😀",
        "😀 ",
        "🧑🏿‍🚀!",
    ),
    *("→", "≤≥", "∑x²", "€5", "™", "©2024", "…", "—", "“quoted”", "«x»", "·", "•", "\u200d", "\ufe0f", "\u20ac\u20ac"),
]

CONTROL = [
    *(
        "\x00",
        "a\x00b",
        "\x00\x00",
        "\x01\x02\x03",
        "\x1b[31mred\x1b[0m",
        "\x7f",
        "\x80",
        "\x85",
        "a\x85b",
        "\x0b",
        "\x0c",
        "a\x0bb",
    ),
    *(
        "\xa0",
        "a\xa0b",
        "\xad",
        "\u1680",
        "\u2003",
        "a\u2003b",
        "\u2028",
        "\u2029",
        "a\u2028b",
        "\u3000",
        "a\u3000b",
        "\u200b",
        "\u180e",
    ),
    *(
        "\u2060",
        "\ufeff",
        "\ufeffhello",
        "\u202e",
        "\u061c",
        "\ufffd",
        "\ufffe",
        "\uffff",
        "\ue000",
        "\U0001fffe",
        "\U0010ffff",
        "\U000e0041",
    ),
    *(
        "\ud7ff",
        "\U00010000",
        "\U0001d400",
        "\u07ff\u0800",
        "\x7e\x80",
        "\xff",
        "\u0100",
        "\U00020000",
        "\U0002ebf0",
        "\u9fff",
        "\u3400",
    ),
]

CODE = [
    "def f(x):\n    return x + 1\n",
    "class A(B):\n\tdef __init__(self, *args, **kwargs):\n\t\tsuper().__init__()\n",
    "#include <stdio.h>\r\nint main(void)\r\n{\r\n\treturn 0;\r\n}\r\n",
    "x = [i**2 for i in range(10) if i % 2 == 0]  # squares",
    "std::vector<std::pair<int, float>> v{{1, 2.f}};",
    "<div class=\"a b\" id='c'>text &amp; more</div>",
    "\\frac{a}{b} + \\sum_{i=0}^{n} x_i^2 \\leq 10",
    "/* comment */ // line\n#define MAX(a,b) ((a)>(b)?(a):(b))",
    "camelCaseWord snake_case_word SCREAMING_CASE kebab-case-word PascalCaseWord XMLHttpRequest iPhone15Pro",
    "$HOME/.config && echo \"${x:-y}\" | grep -E '^[a-z]+$' > /dev/null 2>&1",
    "!!!???...,,,;;;:::---===+++***///\\\\\\|||~~~```^^^%%%$$$###@@@",
    "a==b!=c<=d>=e&&f||g->h::i=>j<<k>>l",
    "\n\n\n\n    \n\n  x",
    "   \n   \n   ",
    "\t \t x \t ",
    " . ",
    " .\n",
    ".\n\n",
    "?!\r\n\r\nx",
    ")/\n/x",
    "a/\r\n/b",
]


def training_corpus():
    """Natural text, code and English prose, enough for some hundred merges."""
    prose = [inspect.getsource(m) for m in (argparse, heapq, textwrap)]
    return SENTENCES * 6 + prose + CODE * 2 + SCRIPTS + EMOJI


def random_mixtures(count):
    """Pieces of all kinds in random order: boundaries nobody thought of."""
    rng = random.Random(20)
    pools = (BASIC, CONTRACTIONS, NUMBERS, SCRIPTS, COMBINING, EMOJI, CONTROL, ["\n", " ", "  ", "\r\n", "a", "1", "'"])
    out = []
    while len(out) < count:
        text = "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(2, 6)))
        if len(text) < 60:
            out.append(text)
    return out


def long_word():
    """One unbroken word of 20,000 letters: quadratic merging would be felt."""
    rng = random.Random(7)
    return "".join(rng.choice("eeettaaoinshrdlu") for _ in range(20000))


def common_texts():
    groups = (BASIC, CONTRACTIONS, NUMBERS, SCRIPTS, COMBINING, EMOJI, CONTROL, CODE, SENTENCES, random_mixtures(40))
    return list(dict.fromkeys(text for group in groups for text in group))
