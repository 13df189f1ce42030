from __future__ import annotations

import pytest

from kaos_backend.api.rates import Rates
from kaos_backend.errors import TooManyRequests
from kaos_backend.settings import Limits


def test_a_burst_then_so_many_a_second() -> None:
    clock = [0.0]
    rates = Rates(Limits(token_requests_s=0.5, token_burst=3), lambda: clock[0])
    for _ in range(3):
        with rates.take("ann"):
            pass
    with pytest.raises(TooManyRequests) as refused, rates.take("ann"):
        pass
    assert refused.value.fields["retry_after_s"] == 2
    with rates.take("ben"):
        pass
    clock[0] = 2.0
    with rates.take("ann"):
        pass
    with pytest.raises(TooManyRequests), rates.take("ann"):
        pass


def test_so_many_at_a_time() -> None:
    rates = Rates(Limits(token_open=1), lambda: 0.0)
    with rates.take("ann"):
        with pytest.raises(TooManyRequests, match="1 requests open"), rates.take("ann"):
            pass
        with rates.take("ben"):
            pass
    with rates.take("ann"):
        pass
