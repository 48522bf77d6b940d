"""The demo's passwords on disk."""

from __future__ import annotations

import stat

from delineate.demo import sign_ins


def test_passwords_are_random_and_can_be_typed():
    made = {sign_ins.new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(password) == 19 for password in made)


def test_only_the_owner_reads_the_file(tmp_path):
    path = tmp_path / "sign-ins.txt"
    passwords = {"a": sign_ins.new_password(), "b": sign_ins.new_password()}
    sign_ins.write(path, passwords)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sign_ins.read(path) == passwords
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_file_there_are_no_passwords(tmp_path):
    assert sign_ins.read(tmp_path / "none.txt") == {}
