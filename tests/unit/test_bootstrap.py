from __future__ import annotations

import json

from machine.workflows import bootstrap


def test_cloud_inits_complaints_are_told_once_and_on_one_line() -> None:
    status = {
        "v1": {
            "datasource": "DataSourceNoCloud [seed=/dev/vdb]",
            "stage": None,
            "init": {
                "errors": [],
                "recoverable_errors": {
                    "DEPRECATED": ["A key is old"],
                    "WARNING": ["Invalid format:\n  line 2", "empty cloud config"],
                },
            },
            "modules-config": {
                "errors": ["('runcmd', RuntimeError())"],
                "recoverable_errors": {"WARNING": ["empty cloud config"]},
            },
        }
    }
    assert bootstrap.complaints(json.dumps(status).encode()) == [
        "Invalid format: line 2",
        "empty cloud config",
        "('runcmd', RuntimeError())",
    ]


def test_a_cloud_init_that_says_nothing_has_no_complaints() -> None:
    before_23_4 = b'{"v1": {"init": {"errors": [], "finished": 1.0}, "stage": null}}'
    assert bootstrap.complaints(before_23_4) == bootstrap.complaints(b"{}") == []
