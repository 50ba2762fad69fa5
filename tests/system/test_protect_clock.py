# SPDX-License-Identifier: MIT
"""A protected VM whose guest keeps KVM's clock on a page with much else. No lab host is needed."""

from test_migrate import hosts, make, start
from test_twin_verbs import kill, protection, wait_for

EPOCHS = 100


def test_the_page_of_the_clock():
    """The twin tries its first state, and no byte of its memory changes, though KVM would write there if it loaded it: the
    epochs after it fit, the twin stays and takes over, and the guest finds nothing wrong."""
    for _ in range(3):
        with hosts() as (one, other):
            make(one, ft={"timeout_ms": 5000})
            start(one)
            (one.root / "w").mkdir()
            one.good("protect", "web1", "--to", other.standby(), "--witness", f"file:{one.root}/w")
            generation = protection(one)["generation"]
            seen = {}

            def enough():
                seen.update(protection(one))
                return seen.get("acked", 0) > EPOCHS or seen.get("state") != "paired"
            one.wait_until(enough, f"{EPOCHS} epochs", 60)
            assert (seen["state"], seen["generation"]) == ("paired", generation), seen
            wait_for(other, "twin")
            kill(one)
            other.goes_on()
