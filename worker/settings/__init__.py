"""The settings: `model` has every one with its type and default, `loading` where values come from.

`addresses` checks hosts, ports and URLs, `advice` finds what is missing or unwise, `secret_key`
reads the app's key.
"""
