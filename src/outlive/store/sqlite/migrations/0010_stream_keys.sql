-- What an item without an entry is recognised by, when its batch is sent again.
ALTER TABLE ol_stream_items ADD COLUMN key TEXT;

CREATE UNIQUE INDEX ol_stream_items_key ON ol_stream_items (row, name, key) WHERE key IS NOT NULL;
