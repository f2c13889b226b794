"""The wire: generated protobuf code, its translator, typed errors across gRPC, and mTLS channels."""
