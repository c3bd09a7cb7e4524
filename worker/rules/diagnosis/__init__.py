"""What `doctor` makes of what it measured: each fact becomes a finding with what to do."""
