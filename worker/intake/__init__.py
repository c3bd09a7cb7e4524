"""Files in: from paths to records, each line accounted for."""
