"""Programs that write code of this repository; what they write is committed, and a house test compares."""
