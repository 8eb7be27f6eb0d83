"""Images: `decide` says what a request needs, `source` brings the bytes, `qcow2` looks at them, `cache` keeps them."""
