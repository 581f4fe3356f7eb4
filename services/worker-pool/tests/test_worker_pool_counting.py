"""Counting tokens where the endpoint does not: close to a real vocabulary, bounded, and quick."""

import time

import msgspec
import pytest
from collegium_worker_pool.upstream.counting import MAX_COUNTED_CHARACTERS, PICTURE_TOKENS, count_prompt, count_tokens
from hypothesis import given
from hypothesis import strategies as st

# Texts and how many tokens of o200k_base they are.
MEASURED = [
    (
        "Die Katze sitzt auf dem Dach und beobachtet die Vögel, die im Garten nach Würmern suchen. Wenn es regnet, geht"
        " sie ins Haus zurück und schläft auf dem Sofa. Die Bundesregierung hat gestern beschlossen, die Förderung"
        " erneuerbarer Energien deutlich auszuweiten.",
        57,
    ),
    (
        "El gobierno anunció ayer una serie de medidas destinadas a reducir las emisiones de gases de efecto"
        " invernadero. Los niños jugaban en el parque mientras sus padres hablaban.",
        34,
    ),
    (
        "Правительство вчера объявило о ряде мер, направленных на сокращение выбросов парниковых газов. Дети играли в"
        " парке, пока их родители разговаривали на скамейке.",
        45,
    ),
    ("政府昨天宣布了一系列旨在减少温室气体排放的措施。孩子们在公园里玩耍,父母在长椅上聊天。机器学习模型需要大量的数据。", 43),  # noqa: E501
    ("정부는 어제 온실가스 배출을 줄이기 위한 일련의 조치를 발표했다. 아이들은 공원에서 놀고 부모들은 벤치에서 이야기를 나누었다.", 42),  # noqa: E501
    ("أعلنت الحكومة أمس عن سلسلة من التدابير الرامية إلى الحد من انبعاثات غازات الدفيئة. كان الأطفال يلعبون في الحديقة.", 34),  # noqa: E501
]  # fmt: skip


@pytest.mark.parametrize(("text", "tokens"), MEASURED)
def test_a_count_is_within_a_fifth_of_a_real_vocabularys(text, tokens):
    assert 0.8 <= count_tokens(text) / tokens <= 1.2


@given(st.text())
def test_a_count_is_at_least_one_and_at_most_the_bytes(text):
    counted = count_tokens(text)
    assert counted <= len(text.encode())
    assert (counted == 0) == (text == "")


@given(st.lists(st.sampled_from(["one", "two", "Öl", "3", "日本", "?!", "\n\n"]), min_size=1))
def test_more_text_is_never_fewer_tokens(words):
    counts = [count_tokens(" ".join(words[:length])) for length in range(1, len(words) + 1)]
    assert counts == sorted(counts)


def test_a_long_text_is_counted_by_its_beginning_and_does_not_hold_up_the_worker():
    text = "a word and another " * (MAX_COUNTED_CHARACTERS // 2)
    began = time.thread_time()
    assert count_tokens(text) == pytest.approx(len(text) / 19 * 4, rel=0.01)
    assert time.thread_time() - began < 1


def test_a_prompt_is_its_texts_and_a_little_for_each_message():
    plain = [{"role": "user", "content": "one two three"}]
    assert count_prompt(msgspec.json.encode(plain)) == 3 + 4
    parts = [{"role": "user", "content": [{"type": "text", "text": "one two three"}]}]
    assert count_prompt(msgspec.json.encode(parts)) == 3 + 4


def test_a_picture_counts_as_one_whatever_its_bytes():
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    assert count_prompt(msgspec.json.encode([{"role": "user", "content": [url]}])) == PICTURE_TOKENS + 4


@pytest.mark.parametrize("prompt", [b"", b"{}", b"[", b"7", b"\xff", b'"text"'])
def test_what_is_no_prompt_counts_nothing(prompt):
    assert count_prompt(prompt) == 0
