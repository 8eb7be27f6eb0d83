"""Jobs: `decide` says which run, join or are forgotten, `journal` keeps them on disk, `registry` runs them."""
