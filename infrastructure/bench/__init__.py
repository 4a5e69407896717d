"""Runs functions over what users write in processes of their own, which may fail, hang and be broken into."""
