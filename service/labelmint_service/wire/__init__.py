"""The wire: all that knows gRPC, but for the server that starts and stops it.

listening         ports, with TLS or without
servicer          calls to streams and back
admin_servicer    the same for what operators ask
version_messages  versions as messages
error_codes       which status an error is
rich_status       retry hints and the like as google.rpc details
health_board      grpc.health.v1: how the server, its models and their versions are
"""
