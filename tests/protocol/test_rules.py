"""What is allowed, as tables; and that no sequence of allowed steps leads out of the limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tusd_py.errors import BadRequest, OffsetMismatch, UploadError, UploadExpired, UploadOverrun, UploadTooLarge
from tusd_py.protocol import rules
from tusd_py.protocol.fields import build_http_date, parse_http_date, parse_metadata
from tusd_py.protocol.messages import Append, Create
from tusd_py.protocol.rules import Limits
from tusd_py.upload import Upload

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
UNLIMITED = Limits()
LIMITS = Limits(max_size=100, partial_expiry=timedelta(minutes=10))


def upload(*, offset: int = 0, length: int | None = 50, complete: bool = False, written_at: datetime = NOW) -> Upload:
    return Upload(
        id="0123456789abcdef",
        created_at=NOW,
        written_at=written_at,
        length=length,
        offset=offset,
        completed_at=NOW if complete else None,
    )


# Creation


@pytest.mark.parametrize("length", [None, 0, 1, 99, 100])
def test_an_upload_up_to_the_maximum_is_created(length: int | None) -> None:
    rules.check_create(Create(length=length), LIMITS)


@pytest.mark.parametrize("length", [101, 2**63, 10**18 - 1])
def test_an_upload_above_the_maximum_is_not(length: int) -> None:
    with pytest.raises(UploadTooLarge) as caught:
        rules.check_create(Create(length=length), LIMITS)
    assert caught.value.maximum == 100


def test_without_a_maximum_any_length_is_taken() -> None:
    rules.check_create(Create(length=10**18 - 1, has_body=True, size=10**18 - 1), UNLIMITED)
    rules.check_create(Create(length=None, has_body=True, size=10**18 - 1), UNLIMITED)


@pytest.mark.parametrize(
    ("length", "size"), [(10, 0), (10, 10), (10, None), (0, 0), (None, 100), (None, None), (100, 100)]
)
def test_a_body_that_fits_into_the_upload_may_come_with_its_creation(length: int | None, size: int | None) -> None:
    rules.check_create(Create(length=length, has_body=size != 0, size=size), LIMITS)


@pytest.mark.parametrize(
    ("length", "size", "error"),
    [(10, 11, UploadOverrun), (0, 1, UploadOverrun), (None, 101, UploadTooLarge), (101, 101, UploadTooLarge)],
)
def test_a_body_that_is_known_not_to_fit_is_refused(length: int | None, size: int, error: type[UploadError]) -> None:
    with pytest.raises(error):
        rules.check_create(Create(length=length, has_body=True, size=size), LIMITS)


@pytest.mark.parametrize(
    ("metadata", "is_accepted"),
    [
        (f"key {'QUJD' * 8191}", True),
        (f"key {'QUJD' * 8192}", False),
        (",".join(f"key{n}" for n in range(500)), True),
        (",".join(f"key{n}" for n in range(501)), False),
    ],
)
def test_metadata_has_a_limit_far_above_what_clients_send(metadata: str, is_accepted: bool) -> None:
    create = Create(length=1, metadata=parse_metadata(metadata))
    if is_accepted:
        rules.check_create(create, LIMITS)
    else:
        with pytest.raises(BadRequest, match="32768 bytes"):
            rules.check_create(create, LIMITS)


# Appends


@pytest.mark.parametrize(
    ("stored", "append"),
    [
        (upload(), Append(offset=0, size=50)),
        (upload(), Append(offset=0, size=0)),
        (upload(), Append(offset=0)),
        (upload(offset=20), Append(offset=20, size=30)),
        (upload(offset=20), Append(offset=20, size=30, length=50)),
        (upload(offset=50), Append(offset=50, size=0)),
        (upload(offset=50, complete=True), Append(offset=50, size=0)),
        (upload(offset=50, complete=True), Append(offset=50)),
        (upload(length=None), Append(offset=0, size=100)),
        (upload(length=None, offset=40), Append(offset=40, size=60)),
        (upload(length=None, offset=100), Append(offset=100, size=0)),
    ],
)
def test_an_append_that_fits_is_taken_and_leaves_the_length_as_it_is(stored: Upload, append: Append) -> None:
    assert rules.check_append(stored, append, LIMITS, NOW) is stored


@pytest.mark.parametrize(("offset", "provided"), [(20, 0), (20, 19), (20, 21), (0, 1), (50, 0), (20, 10**18 - 1)])
def test_an_append_goes_where_the_upload_ends_and_nowhere_else(offset: int, provided: int) -> None:
    with pytest.raises(OffsetMismatch) as caught:
        rules.check_append(upload(offset=offset), Append(offset=provided, size=1), LIMITS, NOW)
    assert (caught.value.expected, caught.value.provided) == (offset, provided)


@pytest.mark.parametrize(
    ("stored", "append", "error"),
    [
        (upload(), Append(offset=0, size=51), UploadOverrun),
        (upload(offset=20), Append(offset=20, size=31), UploadOverrun),
        (upload(offset=50), Append(offset=50, size=1), UploadOverrun),
        (upload(offset=50, complete=True), Append(offset=50, size=1), UploadOverrun),
        (upload(length=0), Append(offset=0, size=1), UploadOverrun),
        (upload(length=None), Append(offset=0, size=101), UploadTooLarge),
        (upload(length=None, offset=40), Append(offset=40, size=61), UploadTooLarge),
        (upload(length=None), Append(offset=0, size=30, length=29), UploadOverrun),
    ],
)
def test_an_append_that_is_known_not_to_fit_is_refused(
    stored: Upload, append: Append, error: type[UploadError]
) -> None:
    with pytest.raises(error):
        rules.check_append(stored, append, LIMITS, NOW)


def test_state_is_judged_before_size_and_expiration_before_everything() -> None:
    late = NOW + timedelta(minutes=11)
    with pytest.raises(UploadExpired):
        rules.check_append(upload(), Append(offset=7, size=1000), LIMITS, late)
    with pytest.raises(OffsetMismatch):
        rules.check_append(upload(), Append(offset=7, size=1000, length=1000), LIMITS, NOW)


def test_a_complete_upload_never_expires_under_an_append() -> None:
    rules.check_append(
        upload(offset=50, complete=True), Append(offset=50, size=0), LIMITS, NOW + timedelta(days=10_000)
    )


# Lengths


@pytest.mark.parametrize("declared", [20, 21, 100])
def test_a_deferred_length_is_settled_by_the_first_declaration(declared: int) -> None:
    stored = upload(length=None, offset=20)
    assert rules.settle_length(stored, declared, LIMITS) == replace(stored, length=declared)


def test_the_declared_length_bounds_the_append_that_declares_it() -> None:
    settled = rules.check_append(upload(length=None), Append(offset=0, size=10, length=10), LIMITS, NOW)
    assert settled.length == 10


@pytest.mark.parametrize("length", [None, 50])
def test_nothing_declared_settles_nothing(length: int | None) -> None:
    stored = upload(length=length)
    assert rules.settle_length(stored, None, LIMITS) is stored


def test_a_length_may_be_repeated() -> None:
    stored = upload(length=50)
    assert rules.settle_length(stored, 50, LIMITS) is stored


@pytest.mark.parametrize("declared", [0, 49, 51, 1000])
def test_a_length_that_is_set_never_changes(declared: int) -> None:
    with pytest.raises(BadRequest, match="the length is 50 already") as caught:
        rules.settle_length(upload(length=50), declared, LIMITS)
    assert caught.value.code == "ERR_INVALID_UPLOAD_LENGTH"


@pytest.mark.parametrize("declared", [0, 19])
def test_a_length_below_the_bytes_already_stored_is_refused(declared: int) -> None:
    with pytest.raises(BadRequest, match="below the 20 bytes already stored"):
        rules.settle_length(upload(length=None, offset=20), declared, LIMITS)


def test_a_declared_length_above_the_maximum_is_refused() -> None:
    with pytest.raises(UploadTooLarge):
        rules.settle_length(upload(length=None), 101, LIMITS)


# Room


@pytest.mark.parametrize(
    ("offset", "length", "limits", "room"),
    [
        (0, 50, LIMITS, 50),
        (20, 50, LIMITS, 30),
        (50, 50, LIMITS, 0),
        (0, None, LIMITS, 100),
        (40, None, LIMITS, 60),
        (150, None, LIMITS, 0),  # the operator lowered the maximum
        (20, 500, LIMITS, 480),  # so here, but what was promised holds
        (0, None, UNLIMITED, None),
        (20, 50, UNLIMITED, 30),
    ],
)
def test_the_length_bounds_an_upload_and_the_maximum_one_without_a_length(
    offset: int, length: int | None, limits: Limits, room: int | None
) -> None:
    assert rules.room(offset, length, limits) == room


def test_bytes_beyond_the_room_pass_the_length_or_the_maximum() -> None:
    assert isinstance(rules.overrun(50, LIMITS), UploadOverrun)
    assert isinstance(rules.overrun(None, LIMITS), UploadTooLarge)


# Expiration


def test_an_unfinished_upload_expires_after_its_last_byte() -> None:
    written_at = NOW + timedelta(seconds=30, microseconds=999)
    assert rules.expires_at(upload(written_at=written_at), LIMITS) == NOW + timedelta(minutes=10, seconds=30)


@pytest.mark.parametrize(
    ("stored", "limits"), [(upload(complete=True, offset=50), LIMITS), (upload(), UNLIMITED), (upload(), Limits())]
)
def test_complete_uploads_never_expire_and_nothing_does_without_an_expiry(stored: Upload, limits: Limits) -> None:
    assert rules.expires_at(stored, limits) is None
    assert not rules.is_expired(stored, limits, NOW + timedelta(days=10_000))


@pytest.mark.parametrize(
    ("late", "expired"),
    [
        (timedelta(0), False),
        (timedelta(minutes=10) - SECOND, False),
        (timedelta(minutes=10), False),
        (timedelta(minutes=10, microseconds=999_999), False),
        (timedelta(minutes=10) + SECOND, True),
        (timedelta(days=10_000), True),
        (-timedelta(days=1), False),  # a clock that was put back
    ],
)
def test_an_upload_is_expired_once_the_second_that_was_told_is_over(late: timedelta, expired: bool) -> None:
    assert rules.is_expired(upload(), LIMITS, NOW + late) is expired


def test_an_upload_that_lacks_only_its_mark_is_finished_and_not_expired() -> None:
    assert not rules.is_expired(upload(offset=50), LIMITS, NOW + timedelta(days=10_000))


moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
spans = st.timedeltas(timedelta(0), timedelta(days=400))


@given(written_at=moments, expiry=spans, later=spans)
def test_no_upload_expires_before_the_moment_that_its_client_was_told(
    written_at: datetime, expiry: timedelta, later: timedelta
) -> None:
    limits = Limits(partial_expiry=expiry)
    stored = upload(written_at=written_at)
    moment = rules.expires_at(stored, limits)
    assert moment is not None
    told = parse_http_date(build_http_date(moment))
    now = written_at + later
    if now <= told:
        assert not rules.is_expired(stored, limits, now)
    if now >= told + SECOND:
        assert rules.is_expired(stored, limits, now)


# Sequences of them

sizes = st.integers(0, 12)
lengths = st.none() | st.integers(0, 14)
requests = st.lists(st.tuples(st.integers(-1, 1), sizes, st.booleans(), lengths))


@given(length=lengths, maximum=st.none() | st.integers(0, 12), requests=requests)
def test_whatever_is_accepted_the_offset_stays_within_the_length_and_the_length_within_the_maximum(
    length: int | None, maximum: int | None, requests: list[tuple[int, int, bool, int | None]]
) -> None:
    limits = Limits(max_size=maximum)
    try:
        rules.check_create(Create(length=length), limits)
    except UploadTooLarge:
        return
    stored = upload(length=length)
    for shift, size, is_sized, declared in requests:
        append = Append(offset=max(stored.offset + shift, 0), size=size if is_sized else None, length=declared)
        before = stored
        try:
            settled = rules.check_append(stored, append, limits, NOW)
        except UploadError:
            continue
        assert append.offset == before.offset
        assert before.length in (None, settled.length)
        room = rules.room(settled.offset, settled.length, limits)
        if room is not None and size > room:
            assert not is_sized
            continue
        stored = replace(settled, offset=settled.offset + size)
        assert stored.length is None or stored.offset <= stored.length
        assert maximum is None or stored.offset <= maximum
        assert maximum is None or stored.length is None or stored.length <= maximum


# Concatenation


def partial(length: int | None = 50, *, written_at: datetime = NOW) -> Upload:
    return replace(upload(length=length, offset=length or 0, written_at=written_at), is_partial=True)


@pytest.mark.parametrize(
    ("lengths", "sum"), [([50], 50), ([50, 50], 100), ([0, 0], 0), ([50, None], None), ([None], None), ([100, 0], 100)]
)
def test_a_final_is_as_long_as_its_partials(lengths: list[int | None], sum: int | None) -> None:
    assert rules.check_members([partial(length) for length in lengths], LIMITS, NOW) == sum


@pytest.mark.parametrize("lengths", [[101], [50, 51], [100, 1, None]])
def test_partials_that_are_too_much_together_make_no_final(lengths: list[int | None]) -> None:
    with pytest.raises(UploadTooLarge):
        rules.check_members([partial(length) for length in lengths], LIMITS, NOW)


def test_a_final_is_made_of_partials_alone() -> None:
    with pytest.raises(BadRequest) as caught:
        rules.check_members([partial(), upload()], LIMITS, NOW)
    assert caught.value.code == "ERR_INVALID_CONCAT"


def test_an_expired_partial_makes_no_final() -> None:
    late = NOW + LIMITS.partial_expiry + SECOND if LIMITS.partial_expiry else NOW
    complete = replace(partial(), completed_at=NOW)
    with pytest.raises(UploadExpired):
        rules.check_members([complete], LIMITS, late)


def test_an_upload_whose_lifetime_is_bounded_expires_at_the_earlier_of_both() -> None:
    limits = replace(LIMITS, partial_lifetime=timedelta(hours=1))
    written_at = NOW + timedelta(minutes=49)
    assert rules.expires_at(upload(written_at=written_at), limits) == NOW + timedelta(minutes=59)
    busy = upload(written_at=NOW + timedelta(minutes=59))
    assert rules.expires_at(busy, limits) == NOW + timedelta(hours=1)
    assert rules.expires_at(busy, replace(limits, partial_expiry=None)) == NOW + timedelta(hours=1)


def test_only_what_is_unfinished_outlives_its_time() -> None:
    limits = replace(LIMITS, partial_lifetime=timedelta(hours=1))
    later = NOW + timedelta(hours=1, seconds=1)
    busy = upload(written_at=later)
    assert rules.has_outlived(busy, limits, later)
    assert not rules.has_outlived(busy, limits, later - timedelta(seconds=1))
    assert not rules.has_outlived(busy, LIMITS, later)
    whole = replace(busy, length=10, offset=10)
    for other in (whole, replace(whole, completed_at=later), replace(busy, members=("0123456789abcdef",))):
        assert not rules.has_outlived(other, limits, later)
    assert rules.expires_at(replace(partial(), completed_at=NOW), limits) == rules.expires_at(partial(), LIMITS)


def test_a_partial_expires_also_when_it_is_complete_and_a_final_lives_as_long_as_its_partials() -> None:
    assert rules.expires_at(replace(partial(), completed_at=NOW), LIMITS) == rules.expires_at(partial(), LIMITS)
    assert rules.expires_at(replace(upload(), members=("0123456789abcdef",)), LIMITS) is None
