"""Known vulnerabilities of the packages in env/requirements.lock, where the data is reachable.

Exit code 1: a package has one. Where the index cannot be asked, it says so and how many packages
were not audited: that is a statement, and no finding.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent / "requirements.lock"


def judge(report: dict[str, Any]) -> tuple[int, str]:
    """The exit code, and what to say of pip-audit's report."""
    packages = report["dependencies"]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    found = [
        f"{one['name']} {one['version']}: {vulnerability['id']}"
        for one in packages
        for vulnerability in one.get("vulns", ())
    ]
    said = f"audit: {len(packages) - len(skipped)} of {len(packages)} packages audited"
    if skipped:
        said += f"; no audit data was reachable for {len(skipped)}"
    return (1, f"{said}; vulnerable: {', '.join(found)}") if found else (0, said)


def main() -> None:
    """Audit the lock."""
    ended = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps",
         "--disable-pip", "--format", "json", "--progress-spinner", "off"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        code, said = judge(json.loads(ended.stdout))
    except ValueError:
        lines = ended.stderr.strip().splitlines()
        code, said = 0, f"audit: not possible here ({lines[-1] if lines else 'no answer'})"
    print(said)
    sys.exit(code)


if __name__ == "__main__":
    main()
