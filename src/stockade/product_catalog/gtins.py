"""Global Trade Item Numbers: check digits, and when two of them are the same number.

The rules are those of the GS1 General Specifications: section 7.9 for the check digit, and GTIN-8, GTIN-12 and GTIN-13
filled with zeros on the left for the common form of 14 digits.
"""

LENGTHS = (8, 12, 13, 14)
_DIGITS = len("00012345678905")


def is_gtin_shaped(code: str) -> bool:
    """Whether a code is all digits and as long as a GTIN, so that its last digit must be a check digit."""
    return len(code) in LENGTHS and code.isascii() and code.isdigit()


def compute_check_digit(digits: str) -> int:
    """The digit that completes these digits; the one beside it weighs three, the next one, and so on in turn."""
    weighed = (int(digit) * (1 if place % 2 else 3) for place, digit in enumerate(reversed(digits)))
    return -sum(weighed) % 10


def has_valid_check_digit(code: str) -> bool:
    return compute_check_digit(code[:-1]) == int(code[-1])


def key_of(code: str) -> str:
    """What is equal for two barcodes that name the same thing; the generated column `barcodes.key` says the same."""
    return code.zfill(_DIGITS) if is_gtin_shaped(code) else code
