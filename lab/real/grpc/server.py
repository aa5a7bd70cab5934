"""A gRPC service without generated code: messages are bytes."""
import concurrent.futures
import sys
import threading
import time

import grpc

cancelled = 0
changed = threading.Lock()


def echo(request, context):
    for key, value in context.invocation_metadata():
        if key == "x-said":
            context.send_initial_metadata((("x-heard", value),))
    context.set_trailing_metadata((("x-length", str(len(request))), ("x-bytes-bin", b"\0\1\2\xff")))
    return request


def slow(request, context):
    def ended():
        global cancelled
        with changed:
            cancelled += 1
    context.add_callback(ended)
    until = time.monotonic() + 3
    while context.is_active() and time.monotonic() < until:
        time.sleep(0.01)
    return b"late"


def fail(request, context):
    context.abort(grpc.StatusCode(next(code.value for code in grpc.StatusCode if code.value[0] == int(request))), "said: 100 % of it \u00e4")


def left(request, context):
    return str(context.time_remaining()).encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(one) for one in requests)).encode()


def talk(requests, context):
    for one in requests:
        yield one[::-1]


def ended(request, context):
    with changed:
        return str(cancelled).encode()


unary = grpc.unary_unary_rpc_method_handler
methods = {
    "Echo": unary(echo), "Slow": unary(slow), "Fail": unary(fail), "Left": unary(left), "Ended": unary(ended),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
}
server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab.Suite", methods),))
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
server.wait_for_termination()
