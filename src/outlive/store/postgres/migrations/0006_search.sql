-- Search: attributes by name and value, and indexes in the order of rows for what runs are listed by.
-- They hold `row + 0`, so that no condition on a row itself can use one of them: while tables are empty all indexes look
-- alike to the planner, and its plans are kept. And a walk that is ordered by `row + 0` can use nothing else.

create table outlive.run_attributes (
  row bigint not null,
  name text collate "C" not null,
  value text collate "C" not null,    -- as model/attributes.py spells it
  primary key (row, name)
);

create index run_attributes_found on outlive.run_attributes (name, value, (row + 0));

create index runs_workflow on outlive.runs (workflow, (row + 0));
create index runs_queue on outlive.runs (queue, (row + 0)) where queue <> '';
create index runs_key on outlive.runs (key, (row + 0)) where key is not null;
drop index outlive.runs_unsuccessful;
create index runs_unsuccessful on outlive.runs (status, (row + 0)) where status in ('failed', 'cancelled');

create or replace function outlive.delete_runs(doomed bigint[]) returns integer language plpgsql as $$
declare
  deleted integer;
begin
  delete from outlive.entries where row = any (doomed);
  delete from outlive.requests where row = any (doomed);
  delete from outlive.messages where row = any (doomed);
  delete from outlive.run_values where row = any (doomed);
  delete from outlive.stream_items where row = any (doomed);
  delete from outlive.promises where row = any (doomed);
  delete from outlive.run_attributes where row = any (doomed);
  delete from outlive.live where row = any (doomed);
  delete from outlive.runs where row = any (doomed);
  get diagnostics deleted = row_count;
  return deleted;
end $$;

create view outlive.outlive_attributes as
select r.id as run, a.name, a.value, a.row
from outlive.run_attributes a
join outlive.runs r on r.row = a.row;
