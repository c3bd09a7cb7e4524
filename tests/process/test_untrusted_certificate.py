"""A service that cannot be reached as it is named: halted at once, and the remedy is named."""

from pathlib import Path

from tests.support.processes import Job
from tests.support.stand_in import SELF_SIGNED, stand_in
from tests.support.topics import records


def test_an_untrusted_certificate_halts_at_once_and_names_the_setting(tmp_path: Path) -> None:
    with stand_in(lambda _: None, is_tls=True) as service:
        job = Job(tmp_path, service.url)
        path = job.write(records(30))
        done = job.backfill(path)
        assert done.returncode == 3
        assert b"TLS failed: self-signed certificate" in done.stdout
        assert b"name the certificate to trust in http.ca_file" in done.stdout
        assert not service.calls
        assert job.report()["queued"] == 30
        trusting = job.backfill(path, HTTP__CA_FILE=str(SELF_SIGNED))
        assert trusting.returncode == 0, trusting.stdout.decode()
        assert len(service.topics) == 30
