"""A bundle's golden data: recorded where it was exported, held against what a phone measured."""
