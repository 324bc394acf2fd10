"""Aggregation rules in exact integers, one file a rule; `rule` chooses by the number of updates."""

from atoll.training.aggregate.rule import Rule, aggregate, apply, rule_for

__all__ = ["Rule", "aggregate", "apply", "rule_for"]
