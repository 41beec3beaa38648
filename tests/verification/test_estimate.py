import math

import numpy as np
import pytest

from llama_export.verification.estimate import Estimate, mean, ratio


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.01213, 0.00038, "0.0121 ± 0.0004"),
        (0.01213, 0.00013, "0.01213 ± 0.00013"),
        (21.847, 1.23, "21.8 ± 1.2"),
        (12345.0, 230.0, "12300 ± 200"),
        (0.924, 0.0096, "0.924 ± 0.010"),
        (0.123, 0.0996, "0.12 ± 0.10"),
        (5.0, 9.6, "5 ± 10"),
        (1.234, 0.196, "1.2 ± 0.2"),
        (1.234, 0.16, "1.23 ± 0.16"),
        (3.2e-8, 9.6e-9, "3.2e-08 ± 1.0e-08"),
        (-0.0001, 0.01, "0.000 ± 0.010"),
        (3.2e-9, 1.4e-10, "3.20e-09 ± 1.4e-10"),
        (0.00012, 0.5, "0.0 ± 0.5"),
        (0.123456, 0.0, "0.123"),
        (0.123456, math.nan, "0.123"),
        (math.inf, 0.1, "inf"),
    ],
)
def test_a_figure_has_the_digits_that_its_error_allows(value, error, shown):
    assert Estimate(value, error).shown() == shown


def test_a_share_is_shown_in_percent():
    assert Estimate(0.9243, 0.0032).shown(100) == "92.4 ± 0.3"


def test_the_error_of_a_mean_is_that_of_its_windows():
    found = mean(np.array([1.0, 2.0, 3.0, 6.0]))
    assert found.value == 3.0
    assert found.error == pytest.approx(math.sqrt(14 / 3 / 4))


def test_the_error_of_a_ratio_leaves_out_what_both_have_in_common():
    base = np.array([1.0, 5.0, 9.0])
    assert ratio(2 * base, base) == Estimate(2.0, 0.0)
    assert ratio(2 * base + np.array([0.1, 0.0, -0.1]), base).error > 0
