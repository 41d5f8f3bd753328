"""What `hambench bench` measures: ratios to a yardstick taken in the same run."""
