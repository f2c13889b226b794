"""Durable state: a relational store and content-addressed artifacts."""
