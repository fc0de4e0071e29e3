"""The reference: PostgreSQL's own pgbench on the same server, doing the same rows without a product in front of it."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from bench.errors import BenchError
from bench.installation import Installation
from bench.meters import Meter, usage
from bench.processes import Process
from bench.results import Sample, quantile
from bench.traffic import HOT_NUMBER

RESERVE_HOT = f"SELECT bench.reserve({HOT_NUMBER});\n"
RESERVE_ANY = "\\set n random(1, :skus)\nSELECT bench.reserve(:n);\n"
READ_ANY = """\\set n random(1, :skus)
SELECT on_hand, sellable, reserved, allocated FROM bench.stock_levels
 WHERE item_id = bench.item(:n) AND warehouse_id = bench.warehouse();
"""
# The three numbers are drawn as traffic.draw_numbers draws them.
PLACE_ORDER = """\\set start random(0, :skus - 1)
\\set stride random(1, (:skus - 1) / 3)
\\set one :start + 1
\\set two (:start + :stride) % :skus + 1
\\set three (:start + 2 * :stride) % :skus + 1
SELECT bench.place_order(:one, :two, :three);
"""

_THREADS_MAX = 2
_CONNECT_S = 0.01
"""How long a client may take to connect, one after the other, while pgbench's clock runs already."""
_GRACE_S = 60


class Pgbench:
    """pgbench against one installation."""

    def __init__(self, installation: Installation, *, skus: int) -> None:
        self._installation = installation
        self._skus = skus
        self._program = _find_program(installation)
        self._directory = installation.directory / "pgbench"

    async def prepare(self) -> None:
        """Make the tables and functions of the reference, and its stock."""
        self._directory.mkdir(exist_ok=True)
        admin = self._installation.admin
        is_ordered = admin.get_server_version().major >= 18
        for name in ("reference.sql", "reference_orders.sql"):
            sql = Path(__file__).with_name(name).read_text(encoding="utf-8")
            sql = sql.replace(":new_id", "uuidv7()" if is_ordered else "gen_random_uuid()")
            await admin.execute(sql.replace(":skus", str(self._skus)))

    async def run(
        self, script: str, *, clients: int, warm_up_s: float, seconds: float, sampling: float = 1.0
    ) -> Sample:
        """One run: transactions per second and times after the warm-up, CPU and count of all of it.

        pgbench cannot warm up by itself, so rate and times are taken from its log of single transactions, of which
        `sampling` is the part that is written. It ends at a whole second, so it may measure for up to a second longer.
        """
        script_path, log_prefix = self._directory / "script.sql", self._directory / "times"
        script_path.write_text(script)
        meter = Meter(postgres=self._installation.postgres_id)
        before = meter.read()
        command = [
            self._program, "--no-vacuum", "--protocol=prepared", f"--client={clients}",
            f"--jobs={min(clients, _THREADS_MAX)}", f"--time={math.ceil(clients * _CONNECT_S + warm_up_s + seconds)}",
            f"--define=skus={self._skus}", f"--file={script_path}",
            "--log", f"--log-prefix={log_prefix}", f"--sampling-rate={sampling}",
        ]  # fmt: skip
        output = self._directory / "pgbench.log"
        output.unlink(missing_ok=True)
        process = Process(command, environment=_environment(self._installation.server.url), log=output)
        try:
            code = await process.wait(limit_s=warm_up_s + seconds + _GRACE_S)
        finally:
            await process.stop()
        spent = meter.read()
        said = output.read_text(errors="replace")
        if code != 0:
            raise BenchError(
                f"pgbench ended with status {code}: {said.strip().splitlines()[-1] if said.strip() else ''}"
            )
        count, failed = read_counts(said)
        rate, ordered_ms = self._read_times(log_prefix, warm_up_s=warm_up_s, sampling=sampling)
        return Sample(
            value=rate, p50_ms=quantile(ordered_ms, 0.5), p99_ms=quantile(ordered_ms, 0.99), count=count,
            detail=usage(before, spent, count=count), faults=(f"{failed} transactions failed",) if failed else (),
        )  # fmt: skip

    def _read_times(self, prefix: Path, *, warm_up_s: float, sampling: float) -> tuple[float, list[float]]:
        lines: list[str] = []
        for path in prefix.parent.glob(f"{prefix.name}.*"):
            lines += path.read_text().splitlines()
            path.unlink()
        return measure_log(lines, warm_up_s=warm_up_s, sampling=sampling)


def measure_log(lines: list[str], *, warm_up_s: float, sampling: float) -> tuple[float, list[float]]:
    """Rate and sorted times (ms) of what a log of pgbench shows after the first `warm_up_s`.

    A line is `client transaction time_us script epoch_s epoch_us`, the time of its end last.
    """
    ends_and_times: list[tuple[float, float]] = []
    for line in lines:
        fields = line.split()
        ends_and_times.append((int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1e3))
    if not ends_and_times:
        raise BenchError("pgbench finished no transaction; measure for longer (--seconds)")
    ends_and_times.sort()
    begin = ends_and_times[0][0] + warm_up_s
    counted = [time_ms for end, time_ms in ends_and_times if end > begin]
    window_s = ends_and_times[-1][0] - begin
    if not counted or window_s <= 0:
        raise BenchError("pgbench finished nothing after its warm-up; measure for longer (--seconds)")
    return len(counted) / sampling / window_s, sorted(counted)


def read_counts(said: str) -> tuple[int, int]:
    """Transactions processed and failed, from pgbench's report."""
    figures = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    processed = figures.get("number of transactions actually processed", "0").strip().partition("/")[0]
    failed = figures.get("number of failed transactions", "0").split()[0]
    return int(processed), int(failed)


def _find_program(installation: Installation) -> Path:
    beside = installation.server.binaries.directory / "pgbench"
    found = beside if beside.exists() else shutil.which("pgbench")
    if found is None:
        raise BenchError(
            "there is no pgbench beside PostgreSQL's programs: install the package that has it, such as postgresql-contrib"
        )
    return Path(found)


def _environment(url: str) -> Mapping[str, str]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGHOST": query["host"][0],
        "PGPORT": query["port"][0],
        "PGDATABASE": parts.path.lstrip("/"),
    }
