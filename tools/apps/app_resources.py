"""Link the Android app's resources, and lay out what its tests on a JVM need.

    python3 tools/apps/app_resources.py [--offline]

`check_android.py` calls it. The folder build/android/app-resources then holds `ids.jar` (R),
`app.apk` (the linked resources), `test/` (where Robolectric learns of them), `sdk/` (the framework
it runs) and two classes' jars out of Android libraries, which Maven puts on no class path.
Resources are linked against Android 14's table, the newest that Debian's aapt2 reads. It knows no
Kotlin.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Runner = Callable[[Sequence[str]], int]

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "apps" / "android" / "app" / "src" / "main"
FOLDER = ROOT / "build" / "android" / "app-resources"
APP_PACKAGE = "org.llamaexport.app"
OLDEST_API = 28
# What Robolectric runs; the users' build compiles against a newer one.
API = 35
FRAMEWORK = "org.robolectric:android-all-instrumented:15-robolectric-13954326-i7"
TABLE = "org.robolectric:android-all:14-robolectric-10818077"
LIBRARIES = {
    "monitor.jar": "androidx.test:monitor:1.8.0:aar",
    "espresso-idling-resource.jar": "androidx.test.espresso:espresso-idling-resource:3.7.0:aar",
}


def whole_manifest(text: str) -> str:
    """Return a manifest with the package and the API levels that Gradle would put into it.

    Its <property> elements are left out: Debian's aapt2 is too old to know them, and no test reads
    them.
    """
    text = re.sub(r"<property\s[^>]*/>", "", text)
    head = f'<manifest package="{APP_PACKAGE}" xmlns:android='
    levels = f'<uses-sdk android:minSdkVersion="{OLDEST_API}" android:targetSdkVersion="{API}"/>'
    merged, count = re.subn(r"<manifest\s+xmlns:android=(\"[^\"]+\")>", rf"{head}\1>{levels}", text)
    if count != 1:
        msg = "AndroidManifest.xml: expected one <manifest> with xmlns:android alone"
        raise ValueError(msg)
    return merged


def _fetched(coordinates: str, folder: Path, run: Runner, *, offline: bool) -> Path:
    """Copy an artifact out of Maven's store, which fetches it where it lacks it."""
    parts = coordinates.split(":")
    kind = parts[3] if len(parts) > 3 else "jar"
    path = folder / f"{parts[1]}-{parts[2]}.{kind}"
    if path.is_file():
        return path
    command = ["mvn", "-B", "-q", *(["-o"] if offline else [])]
    command += ["org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]
    command += [f"-Dartifact={':'.join([*parts[:3], kind])}", f"-DoutputDirectory={folder}"]
    if run(command) != 0 or not path.is_file():
        msg = f"Maven does not give {coordinates}"
        raise RuntimeError(msg)
    return path


def _table(jar: Path, target: Path) -> Path:
    """Write the framework's resource table as aapt2 wants it; return where."""
    if not target.is_file():
        with zipfile.ZipFile(jar) as source, zipfile.ZipFile(target, "w") as packed:
            for name in ("resources.arsc", "AndroidManifest.xml"):
                packed.writestr(name, source.read(name))
    return target


def prepare(app: Path, folder: Path, run: Runner, *, offline: bool) -> None:
    """Fill a folder with what the app is compiled and tested with.

    Args:
        app: the app's `src/main`.
        folder: folder to fill; what is fetched stays from run to run.
        run: what runs a command and returns its exit status.
        offline: whether Maven may take only what it has fetched before.

    Raises:
        RuntimeError: Maven lacks an artifact, or aapt2 refuses a resource.
    """
    fetched, java, tests = folder / "fetched", folder / "java", folder / "test"
    shutil.rmtree(java, ignore_errors=True)
    for path in (fetched, java, tests / "com" / "android" / "tools"):
        path.mkdir(parents=True, exist_ok=True)
    _fetched(FRAMEWORK, folder / "sdk", run, offline=offline)
    jar = _fetched(TABLE, fetched, run, offline=offline)
    # By the jar's own name, or the table of another version would be taken for it.
    table = _table(jar, folder / f"{jar.stem}.apk")
    for name, coordinates in LIBRARIES.items():
        library = _fetched(coordinates, fetched, run, offline=offline)
        with zipfile.ZipFile(library) as source:
            (folder / name).write_bytes(source.read("classes.jar"))
    manifest = folder / "AndroidManifest.xml"
    manifest.write_text(whole_manifest((app / "AndroidManifest.xml").read_text()))
    compiled, linked = folder / "resources.zip", folder / "app.apk"
    link = ["aapt2", "link", "-I", str(table), "--manifest", str(manifest), "-o", str(linked)]
    link += ["--java", str(java), str(compiled)]
    compile_command = ["aapt2", "compile", "--dir", str(app / "res"), "-o", str(compiled)]
    ids = java / Path(*APP_PACKAGE.split("."))
    javac = ["javac", "--release", "11", "-d", str(java), str(ids / "R.java")]
    for command in (compile_command, link, javac):
        if run(command) != 0:
            msg = f"{command[0]} {command[1]} refuses the app's resources"
            raise RuntimeError(msg)
    with zipfile.ZipFile(folder / "ids.jar", "w") as packed:
        for path in sorted(ids.glob("*.class")):
            packed.write(path, path.relative_to(java))
    (tests / "com" / "android" / "tools" / "test_config.properties").write_text(
        f"android_resource_apk={linked}\nandroid_merged_manifest={manifest}\n"
        f"android_custom_package={APP_PACKAGE}\n"
    )


def main(arguments: Sequence[str], run: Runner) -> int:
    """Fill build/android/app-resources; `--offline` asks nothing of the network."""
    try:
        prepare(APP, FOLDER, run, offline="--offline" in arguments)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"android: app: {error}", file=sys.stderr)
        return 1
    return 0


def run_shown(command: Sequence[str]) -> int:
    """Run a command on this terminal and return its exit status."""
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run_shown))
