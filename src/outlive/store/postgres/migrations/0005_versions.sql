-- Which code may go on with a run, and where it stands among the journals it has had.

alter table outlive.runs
  add column pinned boolean not null default false,     -- only code of its version may execute it
  add column continued integer not null default 0,      -- how many times it has been continued as new
  add column continued_at timestamptz;                  -- when its time began anew; null: when it started

-- What a live row has as its workflow: the name, and where the run is pinned its version with it. So the claim of a
-- worker, which names all that it serves, finds no pinned run of another version.
create function outlive.claim_name(workflow text, version text, pinned boolean) returns text immutable language sql as $$
  select case when $3 then $1 || '#' || $2 else $1 end
$$;
