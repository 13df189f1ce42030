"""The commands, one module per noun: parse, call, show. Imported only when one of them runs."""
