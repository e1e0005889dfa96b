-- What all processes of a store may know for a while, by name: an answer of a model, a limit that it has told.
create table outlive.memos (
  name text collate "C" primary key,
  maker text collate "C" not null,
  worker bigint,
  epoch bigint,
  until timestamptz not null,
  value text
);

create index memos_until on outlive.memos (until);
