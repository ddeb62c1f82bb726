"""What values cost and who holds them: accounts with limits, and values that are charged once. Pure."""

from __future__ import annotations

from typing import Any

from telegrad.errors import QuotaExceeded


class Account:
    """Bytes held, against a limit. What is added here is added to the wider accounts too: session, tenant, worker."""

    __slots__ = ("limit_bytes", "nbytes", "owner", "wider")

    def __init__(self, owner: str, *, limit_bytes: int, wider: Account | None = None) -> None:
        self.owner = owner
        self.limit_bytes = limit_bytes
        self.wider = wider
        self.nbytes = 0

    def check(self, nbytes: int) -> None:
        """Raise QuotaExceeded unless so many bytes more are allowed here and in the wider accounts."""
        account: Account | None = self
        while account is not None:
            if nbytes > 0 and account.nbytes + nbytes > account.limit_bytes:
                raise QuotaExceeded(
                    f"{nbytes:,} bytes more do not fit: {account.owner} holds {account.nbytes:,} of"
                    f" {account.limit_bytes:,} bytes; release tensors, or close scopes or sessions",
                    requested_bytes=nbytes,
                    held_bytes=account.nbytes,
                    limit_bytes=account.limit_bytes,
                )
            account = account.wider

    def add(self, nbytes: int) -> None:
        """Count bytes that have been checked, or given back (negative)."""
        account: Account | None = self
        while account is not None:
            account.nbytes += nbytes
            account = account.wider


class Stored:
    """A value on an account: charged once, however many names and downloads hold it."""

    __slots__ = ("_account", "_holders", "nbytes", "value")

    def __init__(self, value: Any, nbytes: int, account: Account) -> None:
        self.value = value
        self.nbytes = nbytes
        self._account = account
        self._holders = 1
        account.add(nbytes)

    @property
    def is_shared(self) -> bool:
        """Whether more than one holder has it."""
        return self._holders > 1

    def hold(self) -> Stored:
        """The same value for one more holder."""
        self._holders += 1
        return self

    def swap(self, value: Any) -> Any:
        """Be another value of as many bytes; returns the one before. Only while there is one holder."""
        assert self._holders == 1
        before, self.value = self.value, value
        return before

    def drop(self) -> bool:
        """One holder less; whether it was the last and the bytes are given back."""
        self._holders -= 1
        if self._holders:
            return False
        self._account.add(-self.nbytes)
        return True
