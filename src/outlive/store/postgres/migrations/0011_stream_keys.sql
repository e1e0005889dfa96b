-- What an item without an entry is recognised by, when its batch is sent again.
alter table outlive.stream_items add column key text collate "C";

create unique index stream_items_key on outlive.stream_items (row, name, key) where key is not null;
