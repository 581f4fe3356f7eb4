"""A streamed text under loss, doubling, reordering and second tries: nothing twice, nothing lost."""

from collegium_gateway.tasks.healing import JoinedText, TextStream
from hypothesis import given
from hypothesis import strategies as st

texts = st.lists(st.text(min_size=1, max_size=4), max_size=12)


@st.composite
def deliveries(draw) -> tuple[list[tuple[int, int, int, str]], list[str], list[str]]:
    """Chunks as they arrive: each of two tries' chunks any number of times, in any order."""
    first, second = draw(texts), draw(texts)
    sent = [(1, 1, number, text) for number, text in enumerate(first)]
    sent += [(1, 2, number, text) for number, text in enumerate(second)]
    arrived = draw(st.lists(st.sampled_from(sent), max_size=40)) if sent else []
    if draw(st.booleans()):
        arrived = sorted(arrived)
    return arrived, first, second


@given(deliveries())
def test_completed_text_is_whole_and_never_repeated(case):
    arrived, first, second = case
    stream = TextStream()
    passed_on: list[str] = []
    for chunk in arrived:
        passed_on.append(stream.chunk(*chunk))
        assert stream.sent == "".join(passed_on), "what was sent is what was passed on"
    for full in ("".join(first), "".join(second)):
        rest = stream.complete(full)
        if rest is None:
            assert not full.startswith(stream.sent), "only a text that does not continue is not completed"
        else:
            assert stream.sent + rest == full
    if arrived:
        of_the_followed = first if arrived[0][:2] == (1, 1) else second
        assert stream.complete("".join(of_the_followed)) is not None, "its own try's text always completes a stream"


@given(texts, st.randoms(use_true_random=False))
def test_chunks_in_order_pass_at_once_however_often_they_are_doubled(pieces, random):
    stream = TextStream()
    for number, text in enumerate(pieces):
        assert stream.chunk(1, 1, number, text) == text
        for _ in range(random.randint(0, 2)):
            assert stream.chunk(1, 1, random.randint(0, number), "again") == ""
    assert stream.complete("".join(pieces)) == ""


def test_after_a_gap_nothing_passes_until_the_end():
    stream = TextStream()
    assert [stream.chunk(1, 1, number, text) for number, text in ((0, "a"), (2, "c"), (1, "b"), (3, "d"))] == [
        "a",
        "",
        "",
        "",
    ]
    assert stream.complete("abcd") == "bcd"


def test_a_stream_whose_first_chunk_was_lost_is_told_at_the_end():
    stream = TextStream()
    assert stream.chunk(1, 1, 1, "b") == ""
    assert stream.complete("ab") == "ab"


def test_a_second_delivery_is_not_mixed_in():
    stream = TextStream()
    stream.chunk(1, 1, 0, "Paris")
    assert stream.chunk(1, 2, 1, " is") == ""
    assert stream.chunk(2, 1, 1, " was") == ""
    assert stream.complete("Paris, of course") == ", of course"
    assert stream.complete("It is Paris") is None


def test_nothing_sent_is_completed_by_everything():
    assert TextStream().complete("all of it") == "all of it"
    assert TextStream().complete("") == ""


@given(texts, st.data())
def test_tokens_join_to_the_output_whatever_was_missed(words, data):
    """Chunks in any order, lost or doubled, and checkpoints late or twice."""
    full = "".join(words)
    steps = [("chunk", number) for number in range(len(words))] + [("checkpoint", end) for end in range(len(words) + 1)]
    joined, told = JoinedText(), ""
    for kind, number in data.draw(st.lists(st.sampled_from(steps), max_size=40)):
        if kind == "chunk":
            tokens = joined.chunk((1, 1), number, words[number])
        else:
            tokens = joined.checkpoint((1, 1), number, "".join(words[:number]))
            so_far = told + "".join(text for _, _, text in tokens)
            assert so_far.startswith("".join(words[:number])), "a checkpoint leaves nothing of it missing"
        told += "".join(text for _, _, text in tokens)
        assert full.startswith(told)
    assert told + "".join(text for _, _, text in joined.complete(full)) == full


def test_a_second_try_is_told_from_its_beginning():
    joined = JoinedText()
    assert joined.chunk((1, 1), 0, "a") == [((1, 1), 0, "a")]
    assert joined.chunk((1, 2), 1, "c") == []
    assert joined.checkpoint((1, 2), 1, "b") == [((1, 2), 0, "b"), ((1, 2), 1, "c")]
    assert joined.complete("bcd") == [((1, 2), 2, "d")]
    assert joined.complete("another") == [], "nothing is taken back"
