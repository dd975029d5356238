"""The typed data that passes between steps: specs that go in, results that come out, and their JSON."""
