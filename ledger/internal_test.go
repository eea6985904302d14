package ledger

// These are for tests of what they cost and look at.
const (
	EntryAtSQL        = entryAtSQL
	ArchivedAtSQL     = archivedAtSQL
	ArchivedBeforeSQL = archivedBeforeSQL
	NextSQL           = nextSQL
	UsedAtSQL         = usedAtSQL
	EntriesSQL        = entriesSQL
	LookSQL           = lookSQL
	PostingSQL        = postingSQL
	ActivitySQL       = activitySQL
	LeftSQL           = leftSQL
)
