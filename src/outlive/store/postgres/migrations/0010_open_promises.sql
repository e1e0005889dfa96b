-- What a promise that waits for somebody is about: listed by topic while it is open.
alter table outlive.promises
  add column topic text collate "C",
  add column about text,
  add column about_codec text;

create index promises_open on outlive.promises (topic, created_at, token) where topic is not null and settled_at is null;

drop view outlive.outlive_promises;
create view outlive.outlive_promises as
select r.id as run, p.key, p.topic, p.about, p.outcome, p.value, p.error, p.created_at, p.expires_at, p.settled_at, p.row
from outlive.promises p join outlive.runs r on r.row = p.row;
