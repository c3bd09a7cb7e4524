"""A run that has not reached the service: when it waits, and when it halts."""

from worker.rules.first_contact import FIRST_CONTACT_S, FirstContact
from worker.rules.verdict import SetupFault


def test_a_certificate_that_is_not_trusted_halts_at_once() -> None:
    halt = FirstContact().failed(SetupFault.CERTIFICATE, "self-signed certificate", 0.0)
    assert halt is not None
    assert halt.code == "outage"
    assert "http.ca_file" in halt.message
    assert "self-signed certificate" in halt.message


def test_an_address_that_leads_nowhere_halts_after_a_while() -> None:
    contact = FirstContact()
    assert contact.failed(SetupFault.ADDRESS, "no such host", 5.0) is None
    assert contact.failed(SetupFault.ADDRESS, "no such host", 4.9 + FIRST_CONTACT_S) is None
    halt = contact.failed(SetupFault.ADDRESS, "no such host", 5.0 + FIRST_CONTACT_S)
    assert halt is not None
    assert "no such host" in halt.message
    assert "app.base_url" in halt.message


def test_a_failure_that_passes_by_itself_is_waited_for() -> None:
    contact = FirstContact()
    assert not any(contact.failed(None, "HTTP 502", float(at_s)) for at_s in range(1000))


def test_after_an_answer_no_failure_is_one_of_the_setup() -> None:
    contact = FirstContact()
    contact.made()
    assert contact.failed(SetupFault.CERTIFICATE, "expired", 0.0) is None
    assert contact.failed(SetupFault.ADDRESS, "no such host", 1000.0) is None
