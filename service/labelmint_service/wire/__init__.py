"""The wire: all that knows gRPC.

listening         ports, with TLS or without
call_server       takes them, whatever they name
line_limit        of how many refused calls the log tells
grpc_logs         what grpc itself may not write into the log
calls             what is the same for all: who calls, request ids, traces, status
servicer          requests to streams and back
admin_servicer    the same for what operators ask
token_guard       keeps callers without a token from reflection
open_calls        calls of services that ask for no token of their own: health and reflection
health_servicer   grpc.health.v1 for whoever asks
reflecting        which services and messages there are
version_messages  versions as messages
error_codes       which status an error is
rich_status       retry hints and the like as google.rpc details
health_board      how the server, its models and their versions are
"""
