"""Pure data of the engine: what is written, what is read, and rules over both. No I/O."""
