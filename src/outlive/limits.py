"""Every limit of Outlive, each with its unit and its reason. Floor 0: no imports."""

ID_MAX_CHARS = 200  # of a run id: readable in a log line, indexable on both stores
NAME_MAX_CHARS = 200  # of a definition, queue or topic
PAYLOAD_MAX_BYTES = 32 * 1024 * 1024  # one value; above it a database is the wrong place
BLOB_THRESHOLD_CHARS = 64 * 1024  # a larger payload is committed apart from the batch of all, so that it delays nobody
ERROR_TEXT_MAX_CHARS = 8_000  # message or traceback kept of one error
ERROR_CAUSES_MAX = 8  # links of a recorded cause chain

ATTRIBUTES_MAX = 50  # of one run: each is a row and two index entries
ATTRIBUTE_NAME_MAX_CHARS = 100
ATTRIBUTE_VALUE_MAX_CHARS = 200  # of one that is indexed: a longer text is kept, and not searched for
QUERY_MAX_CHARS = 4_000  # of a query over runs, as a person or a program writes it
QUERY_VALUES_MAX = 50  # alternatives of one condition: each may walk an index of its own
COUNT_MAX_RUNS = 10_000  # a count goes no further unless asked: nobody reads the digits beyond
BULK_BATCH_RUNS = 50  # runs that an action in bulk is asked of side by side
PRUNE_BATCH_RUNS = 50  # runs deleted in one transaction: 3 ms of SQLite's one writer
PRUNE_REST = 3.0  # after each batch everything else has its turn, for so many times what it took
ROW_TIME_SLACK_S = 3_600.0  # a row number tells when its writer drew it: how far a run's creation may be from that

PRIORITY_MAX = 2**31 - 1  # what an integer column of PostgreSQL holds
WAIT_MAX_S = 100 * 365.25 * 86_400.0  # of a delay or deadline: a longer one is a mistake, and calendars end

GENERATIONS_KEPT = 5  # whose journals a run that goes on as new leaves readable; older ones go as it does

BATCH_MAX_ROWS = 2_000  # per commit: larger batches only add tail latency (measured flat beyond 1,000)
CLAIM_MAX_RUNS = 200  # per claim: one statement, 2 ms on two cores

LEASE_MIN_S = 0.5  # below it a garbage collection looks like a death
BEATS_PER_LEASE = 3  # two may be lost
LEASE_MARGIN = 0.1  # share of the lease in which a worker no longer starts steps

POLL_BUSY_S = 0.02  # adaptive polling: while there is work ...
POLL_IDLE_S = 1.0  # ... and at rest
CHILDREN_END_S = 30.0  # a retry waits so long for children that were cancelled with the run
FETCH_MAX = 100  # unread messages of a topic, or items of a stream, read at a time
SWEEP_S = 1.0  # wake-ups lost by a process that died in between are found this soon
STORE_AGAIN_S = 0.2  # to a store that does not answer
STREAM_FLUSH_S = 0.05  # a token is on its way to readers this soon: below what an eye notices
STREAM_DELTA_CHARS = 8_192  # of tokens that wait for the same flush and become one item; longer ones become several

RESIDENT_IDLE_RUNS = 1_000  # waiting runs kept in memory; the least recently used leave
RESIDENT_WAIT_S = 3600.0  # a longer wait leaves memory at once
STEP_THREADS = 64  # sync step bodies at a time
WORKFLOW_THREADS = 64  # sync workflow bodies in memory; an idle one makes room
TURN_MAX_CALLBACKS = 1_000_000  # in one turn of a run loop: a workflow that spins without waiting
UNWIND_MAX_THROWS = 50  # how often a branch that catches its own end is ended again, before it is left alone
HOLD_BACK_MAX_S = 3_600.0  # after a provider has refused a model; if it asks for more, it is asked again
HEARD_WITHIN_S = 0.1  # that a model is to be left alone: a process asks its database so often, not at each request
HOLD_BACK_SPREAD_S = 0.5  # over which those who have waited ask again, so that not all come at once
ROOM_WAIT_S = 60.0  # for room in a budget that others have reserved and may not use: longer than most answers take
ROOM_LOOK_FIRST_S, ROOM_LOOK_MAX_S, ROOM_LOOK_GROWTH = 0.05, 1.0, 1.5  # between two looks whether there is room
ANSWER_MAKING_MAX_S = 7_200.0  # that one asks for an answer which others wait for, its waits for the provider included
MEMOS_FORGOTTEN = 10  # memos that have passed, deleted with each that is put: more than come
REHEARSAL_S = 30.0  # that a workflow body may compute between two durable calls while its journal is tried on new code
TRANSACTION_TIMEOUT_S = 5.0  # of a user's transaction

SUSPECT_CRASHES = 2  # after so many crashes a run executes only with others like it
SUSPECT_GROUPS = {2: 64, 3: 8}  # by its crashes, how many suspects execute side by side; with more of them one alone
QUARANTINE_CRASHES = 7  # a run that dies alone is quarantined at this one: three in a row, alone, are no accident
SUSPECT_EVERY_S = 5.0  # how often a busy worker makes room for a suspect
SUSPECT_QUIET_S = 1.0  # how long other runs may be held up for a suspect

LOOP_LAG_WARN_S = 0.25  # a blocked main loop is reported with its stack

SCHEDULE_NAME_MAX_CHARS = 170  # a tick's run id is the name, '@' and an instant
SCHEDULE_EVERY_MIN_S = 1.0  # below it a loop in a workflow is the better schedule
SCHEDULE_LATE_S = 60.0  # a tick found so late was not missed: a short outage, a restart
SCHEDULE_CATCH_UP_MAX = 1_000  # missed ticks started after an outage; older ones are skipped
SCHEDULE_WAITING_MAX = 1_000  # ticks that wait for the runs before them; more are skipped
SCHEDULE_COUNT_MAX = 10_000  # skipped ticks counted at a time, so that years of seconds cost nothing
SCHEDULE_RUNS_MAX = 100  # per transaction
SCHEDULE_BACKFILL_MAX = 10_000  # ticks of one backfill
SCHEDULE_FIRES_MAX = 10_000  # coming ticks told at a time
SCHEDULE_RETRY_S = 60.0  # a schedule that this process cannot compute is looked at again

INTERRUPTIONS_MAX = 3  # of one unit of an agent by the loss of a server

TREE_MAX_BYTES = 8 * 1024 * 1024  # of the files that a guarded loop keeps in its journal, all together
TREE_MAX_FILES = 4_000
TREE_MAX_DEPTH = 64  # of folders in folders: paths have an end, too
FAULTS_TOLD_MAX = 20  # of one attempt, to the model
FAULTS_EXPLAINED_MAX = 200  # of one attempt, in the record; of more the names say enough
CHECK_REPORT_MAX_BYTES = 16 * 1024 * 1024  # what tests tell of themselves: 2 KB for each of 8,000
CHECK_OUTPUT_MAX_BYTES = 16 * 1024  # the end of what they print
CHECK_MEMORY_MAX_BYTES = 4 * 1024**3  # of each process of a check
CHECK_FILE_MAX_BYTES = 1024**3  # of each file that it writes

ASK_FOR_S = 7 * 86_400.0  # for so long a person is asked unless told otherwise, then nobody has decided
PERSON_MAX_CHARS = 1_000  # of the name of who decides: it is shown to everybody who decides after him
LINK_SECRET_MIN_CHARS = 32  # of the key that signs links to approvals: 128 bits, as hexadecimal digits
LINK_FORM_MAX_BYTES = 16_384  # of a decision by link: a reason, no essay
LINK_FIELDS_MAX = 8  # of a link, or its form

MCP_CHANGES_MAX_CHARS = 4_000  # of what an error tells about another catalogue; ERROR_TEXT_MAX_CHARS would cut it off
MCP_CONNECT_S = 10.0  # for so long an MCP server that cannot be reached is tried again
MCP_IDLE_S = 1.0  # after so long without use a session with one is asked whether it is alive
MCP_TASKS_MAX = 100  # of one client that listens; the others it has to ask for
MCP_FORM_TRIES = 3  # whose answers do not fit: a client that fills in forms by itself is then left alone
MCP_ASK_S = 5.0  # who has not answered by then is busy
