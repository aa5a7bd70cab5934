#!/usr/bin/env python3
"""gRPC as Google's own library speaks it, through the gateway: every kind of call, deadlines, cancellations, trailers.

usage: suite.py HOST:PORT AUTHORITY        needs the PyPI package grpcio; `run` beside this starts the service
"""
import concurrent.futures
import pathlib
import sys
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cases import run

CODES = {code.value[0]: code for code in grpc.StatusCode}


def main():
    options = [("grpc.default_authority", AUTHORITY), ("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(TO, options=options)
    unary = lambda name: channel.unary_unary(f"/lab.Suite/{name}")
    echo, slow, fail = unary("Echo"), unary("Slow"), unary("Fail")
    cases = []

    def case(test):
        cases.append((test.__name__, test))

    @case
    def a_call_is_answered():
        assert echo(b"hello", timeout=10) == b"hello"

    @case
    def an_empty_message_is_one():
        assert echo(b"", timeout=10) == b""

    @case
    def metadata_and_trailers_go_both_ways():
        answer, call = echo.with_call(b"four", timeout=10, metadata=(("x-said", "word"),))
        assert ("x-heard", "word") in call.initial_metadata(), call.initial_metadata()
        trailers = dict(call.trailing_metadata())
        assert trailers["x-length"] == "4" and trailers["x-bytes-bin"] == b"\0\1\2\xff", trailers

    @case
    def every_status_arrives_with_its_message():
        for number, code in CODES.items():
            if number:
                try:
                    fail(str(number).encode(), timeout=10)
                except grpc.RpcError as error:
                    assert (error.code(), error.details()) == (code, "said: 100 % of it \u00e4"), (code, error)
                else:
                    raise AssertionError(f"{code} was no error")

    @case
    def an_unknown_method_is_unimplemented():
        try:
            unary("None")(b"", timeout=10)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

    @case
    def a_deadline_is_kept_and_told():
        began = time.monotonic()
        try:
            slow(b"", timeout=0.3)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        else:
            raise AssertionError("it was not kept")
        assert time.monotonic() - began < 2
        left = float(unary("Left")(b"", timeout=20))
        # The library itself rounds what it sends up to the next tenth.
        assert 10 < left <= 20.2, left

    @case
    def a_cancellation_reaches_the_service():
        before = int(unary("Ended")(b"", timeout=10))
        calls = [slow.future(b"", timeout=20) for _ in range(5)]
        time.sleep(0.3)
        for call in calls:
            call.cancel()
        until = time.monotonic() + 2.0
        while int(unary("Ended")(b"", timeout=10)) < before + 5:
            assert time.monotonic() < until, "the service goes on with what nobody waits for"

    @case
    def a_service_streams():
        answers = list(channel.unary_stream("/lab.Suite/Count")(b"2000", timeout=20))
        assert answers == [str(number).encode() for number in range(2000)]

    @case
    def a_client_streams():
        total = channel.stream_unary("/lab.Suite/Total")(iter([b"x" * 1000] * 500), timeout=20)
        assert total == b"500000", total

    @case
    def both_stream_in_turn():
        def words():
            for number in range(200):
                yield str(number).encode()
        answers = list(channel.stream_stream("/lab.Suite/Talk")(words(), timeout=20))
        assert answers == [str(number).encode()[::-1] for number in range(200)]

    @case
    def a_stream_is_cancelled_half_way():
        stream = channel.unary_stream("/lab.Suite/Count")(b"100000000", timeout=20)
        for _, answer in zip(range(10), stream):
            pass
        stream.cancel()
        assert echo(b"after", timeout=10) == b"after"

    @case
    def large_messages_pass():
        message = bytes(range(256)) * (16 << 10)
        assert echo(message, timeout=30) == message

    @case
    def compressed_messages_pass():
        assert echo(b"again " * 10000, timeout=10, compression=grpc.Compression.Gzip) == b"again " * 10000

    @case
    def many_at_once_are_answered():
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            words = [str(number).encode() for number in range(2000)]
            assert list(pool.map(lambda word: echo(word, timeout=20), words)) == words

    run(cases, (AssertionError, grpc.RpcError))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    TO, AUTHORITY = sys.argv[1:]
    main()
