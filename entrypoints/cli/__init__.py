"""The command line: parse, call one use case, render. No module here imports composition at its top."""
