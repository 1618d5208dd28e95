"""Stages that find broken samples, measure sound ones, and drop what a declared limit refuses."""
