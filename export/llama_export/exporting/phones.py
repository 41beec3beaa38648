"""Some well-known phones: their memory, what an app may take of it, and how fast it is read.

Every figure has the page it was found on. Where a page gives the memory's kind and not its speed,
the peak is derived: transfers a second times the width of the bus. What was not found is None;
nothing is guessed. The module is data and arithmetic; it knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GB = 1_000_000_000
GIB = 2**30

# What developers measured of the memory that iOS lets an app have: 37.5 % and 75 % of an 8 GB iPad,
# after and before iPadOS 26.4; on a 12 GB iPhone 3.3 GB, and 6 to 8 GB with the entitlement.
# Android publishes no such limit; the same is assumed there.
SURE_SHARE = 0.375
SURE_LIMIT_BYTES = 3_300_000_000
LIKELY_SHARE = 0.75
LIKELY_LIMIT_BYTES = 8_000_000_000
SHARE_SOURCES = (
    "https://developer.apple.com/forums/thread/826325",
    "https://raw.githubusercontent.com/LNPANDY/NX2Apple/master/ENTITLEMENTS.md",
    "https://developer.apple.com/documentation/bundleresources/entitlements/"
    "com.apple.developer.kernel.increased-memory-limit",
)

_RATES = "https://everything.explained.today/Mobile_DDR/"
_APPLE_BUS = (
    "https://en.shiftdelete.net/iphone-18-pro-to-feature-a20-pro-with-96-bit-lpddr6-memory/"
)
_APPLE_KINDS = "https://smhn.info/202301-iphone-16-pro-lpddr5x"
_IPHONE_13 = "https://www.macrumors.com/2021/09/15/how-much-ram-in-iphone-13/"
_IPHONE_14_15 = "https://www.macrumors.com/2023/09/12/iphone-15-pro-models-have-8gb-ram/"
_A16_IN_15 = "https://appleosophy.com/2023/09/13/iphone-15-pro-now-officially-features-8-gb-ram"
_IPHONE_16 = (
    "https://www.techradar.com/phones/iphone/"
    "every-iphone-16-model-seemingly-has-8gb-of-ram-which-could-be-bad-news-for-apple-intelligence"
)
_A18 = (
    "https://www.notebookcheck.net/"
    "Apple-A18-and-A18-Pro-announced-with-massive-CPU-and-GPU-performance-gains.886423.0.html"
)
_A15 = "https://askgeek.io/en/cpus/Apple/A15-Bionic"
_SNAPDRAGON_8 = "https://droidholic.com/snapdragon-8-gen-3-launched/"
_CHANNELS = "https://androidcommunity.com/snapdragon-888-successor-qualcomm-sm8450-soc-on-the-horizon-20210607/"
_SNAPDRAGON_4 = (
    "https://en.wikichip.org/w/index.php?diff=prev&oldid=103174&title=qualcomm%2Fsnapdragon_4"
)


@dataclass(frozen=True)
class Phone:
    """A phone.

    Args:
        name: name in a shop, or the chip's.
        memory_bytes: size of the RAM; shops write GB and mean GiB.
        memory_kind: kind of memory, such as "LPDDR5"; None where no page was found.
        bandwidth: peak in bytes per second; None where neither it nor the kind was found.
        derived: whether the bandwidth is transfers per second times bus width, not published.
        sources: pages for all of the above.
        system: "Android" or "iOS".
    """

    name: str
    memory_bytes: int
    memory_kind: str | None
    bandwidth: float | None
    derived: bool
    sources: tuple[str, ...]
    system: str = "Android"

    @property
    def sure_bytes(self) -> int:
        """What an app may count on."""
        return min(int(self.memory_bytes * SURE_SHARE), SURE_LIMIT_BYTES)

    @property
    def likely_bytes(self) -> int:
        """What an app may get when it asks for more and the system allows it."""
        return min(int(self.memory_bytes * LIKELY_SHARE), LIKELY_LIMIT_BYTES)

    def verdict(self, needed_bytes: int) -> str:
        """Judge whether it could hold so much: "yes", "perhaps" or "no"."""
        if needed_bytes <= self.sure_bytes:
            return "yes"
        return "perhaps" if needed_bytes <= self.likely_bytes else "no"

    def tokens_per_s(self, read_bytes_per_token: int) -> float | None:
        """Return the bound on decoding: nothing reads faster than the memory's peak."""
        return None if self.bandwidth is None else self.bandwidth / read_bytes_per_token


# Million transfers a second, at the most, of each kind.
TRANSFER_RATES: Mapping[str, int] = {"LPDDR4X": 4267, "LPDDR5": 6400}


def derived_bandwidth(megatransfers_per_s: int, bus_bits: int = 64) -> float:
    """Return bytes per second of a bus."""
    return megatransfers_per_s * 1e6 * bus_bits / 8


def _iphone(name: str, gib: int, kind: str, *sources: str) -> Phone:
    """Make an iPhone whose memory runs at its kind's rate on Apple's 64-bit bus."""
    bandwidth = derived_bandwidth(TRANSFER_RATES[kind])
    pages = (*sources, _APPLE_KINDS, _RATES, _APPLE_BUS)
    return Phone(name, gib * GIB, kind, bandwidth, True, pages, "iOS")


PHONES: tuple[Phone, ...] = (
    Phone("iPhone 13", 4 * GIB, "LPDDR4X", 34.1 * GB, False, (_IPHONE_13, _A15), "iOS"),
    Phone("iPhone 13 Pro", 6 * GIB, "LPDDR4X", 34.1 * GB, False, (_IPHONE_13, _A15), "iOS"),
    _iphone("iPhone 14", 6, "LPDDR4X", _IPHONE_14_15),
    _iphone("iPhone 14 Pro", 6, "LPDDR5", _IPHONE_14_15),
    _iphone("iPhone 15", 6, "LPDDR5", _IPHONE_14_15, _A16_IN_15),
    _iphone("iPhone 15 Pro", 8, "LPDDR5", _IPHONE_14_15),
    Phone(
        "iPhone 16, 16 Pro",
        8 * GIB,
        None,
        1.17 * derived_bandwidth(TRANSFER_RATES["LPDDR5"]),  # "17 % more than its predecessors"
        True,
        (_IPHONE_16, _A18, _RATES, _APPLE_BUS),
        "iOS",
    ),
    Phone(
        "iPhone 17 Pro",
        12 * GIB,
        None,
        None,
        False,
        (
            "https://www.androidgyaan.in/"
            "apple-goes-against-the-grain-where-android-saves-it-bets-on-width/",
        ),
        "iOS",
    ),
    Phone(
        "Pixel 7",
        8 * GIB,
        None,
        None,
        False,
        (
            "https://www.thehansindia.com/technology/tech-news/"
            "google-pixel-8-to-come-with-tensor-g3-chipset-768762",
        ),
    ),
    Phone(
        "Pixel 8",
        8 * GIB,
        None,
        None,
        False,
        (
            "https://www.gadgets360.com/mobiles/news/google-tensor-g4-pixel-9-pro-fowlp-"
            "technology-samsung-4nm-performance-improvements-report-5192940",
        ),
    ),
    Phone(
        "Pixel 9",
        12 * GIB,
        None,
        None,
        False,
        (
            "https://bgr.com/tech/"
            "only-iphone-17-pro-max-to-get-12gb-of-ram-and-thats-great-news-for-ios-19-ai/",
        ),
    ),
    Phone(
        "Galaxy S22",
        8 * GIB,
        "LPDDR5",
        derived_bandwidth(TRANSFER_RATES["LPDDR5"]),
        True,
        (
            "https://www.ibtimes.co.uk/"
            "samsung-galaxy-s23-series-get-faster-ram-improved-memory-speeds-earlier-rumoured-1711529",
            "https://igeekphone.com/samsung-galaxy-s22-real-renders-obtains-fcc-certification",
            _CHANNELS,
            _RATES,
        ),
    ),
    Phone(
        "Galaxy S23",
        8 * GIB,
        "LPDDR5X",
        derived_bandwidth(2 * 4200),
        True,
        (
            "https://tech.everyeye.it/notizie/"
            "samsung-galaxy-s23-novita-ram-primi-smartphone-memorie-lpddr5x-628354.html",
            _SNAPDRAGON_8,
            _CHANNELS,
        ),
    ),
    Phone(
        "Galaxy S24 (Snapdragon)",
        8 * GIB,
        "LPDDR5X",
        derived_bandwidth(2 * 4800),
        True,
        (
            "https://www.androidstory.net/samsung-galaxy-s24-series-geekbench/",
            _SNAPDRAGON_8,
            _CHANNELS,
        ),
    ),
    Phone(
        "Galaxy S25",
        12 * GIB,
        "LPDDR5X",
        76.8 * GB,
        False,
        (
            "https://www.indiatvnews.com/technology/news/samsung-galaxy-s25-series-leak-"
            "snapdragon-8-elite-chip-confirmed-ahead-of-january-launch-2025-01-02-969169",
            "https://cputronic.com/en/soc/qualcomm-snapdragon-8-elite-gen-4",
        ),
    ),
    # Chips of cheap phones, with the memory that such phones begin with.
    Phone(
        "Snapdragon 4s Gen 2",
        4 * GIB,
        "LPDDR4X",
        17 * GB,
        False,
        (_SNAPDRAGON_4,),
    ),
    Phone(
        "Snapdragon 4 Gen 2",
        6 * GIB,
        "LPDDR5",
        25.6 * GB,
        False,
        (_SNAPDRAGON_4,),
    ),
)


def phones_of(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[Phone, ...]]:
    """Return which phones would run which target: each takes the first that its system has.

    Args:
        ranks: rank of each target on each system that could run it, by the target's name.
    """
    takes = {
        system: min(
            (target for target in ranks if system in ranks[target]),
            key=lambda target: ranks[target][system],
            default=None,
        )
        for system in {phone.system for phone in PHONES}
    }
    found = {
        target: tuple(phone for phone in PHONES if takes[phone.system] == target)
        for target in ranks
    }
    return {target: phones for target, phones in found.items() if phones}
