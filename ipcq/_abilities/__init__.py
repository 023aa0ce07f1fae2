"""Abilities of queues that not every backend has: each is a protocol of the channel and a mixin of the handle."""
