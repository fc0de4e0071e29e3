"""Check digits of GTINs, and which codes are the same number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockade.product_catalog.gtins import LENGTHS, compute_check_digit, has_valid_check_digit, is_gtin_shaped, key_of

DIGITS = st.sampled_from(LENGTHS).flatmap(
    lambda length: st.text(alphabet="0123456789", min_size=length - 1, max_size=length - 1)
)


@pytest.mark.parametrize("code", ["96385074", "036000291452", "4006381333931", "00012345678905", "5901234123457"])
def test_it_knows_printed_numbers(code: str):
    assert is_gtin_shaped(code)
    assert has_valid_check_digit(code)


@pytest.mark.parametrize("code", ["", "1234567", "123456789", "12345678901", "A2345678", "\N{SUPERSCRIPT TWO}" * 8])
def test_other_codes_are_free(code: str):
    assert not is_gtin_shaped(code)
    assert key_of(code) == code


@given(DIGITS)
def test_every_number_has_exactly_one_check_digit(digits: str):
    valid = [last for last in range(10) if has_valid_check_digit(f"{digits}{last}")]
    assert valid == [compute_check_digit(digits)]


@given(DIGITS, st.data())
def test_it_notices_every_single_wrong_digit(digits: str, data: st.DataObject):
    code = f"{digits}{compute_check_digit(digits)}"
    place = data.draw(st.integers(0, len(code) - 1))
    wrong = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != code[place]]))
    assert not has_valid_check_digit(code[:place] + wrong + code[place + 1 :])


@given(DIGITS)
def test_zeros_in_front_change_neither_check_digit_nor_key(digits: str):
    code = f"{digits}{compute_check_digit(digits)}"
    longer = code.zfill(14)
    assert has_valid_check_digit(longer)
    assert key_of(code) == key_of(longer) == longer
