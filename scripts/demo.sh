#!/usr/bin/env bash
# The whole story against a running `lockstep dev`: spending, a refusal, a replay, a refill by card, the
# balance in Stripe, a declined card, the pause, and what clears it. Each run makes a customer of its own.
#
#   LOCKSTEP_URL, LOCKSTEP_API_KEY        the gateway; dev's by default
#   STRIPE_API_BASE, STRIPE_SECRET_KEY    Stripe; dev's simulator by default
set -euo pipefail

url=${LOCKSTEP_URL:-http://127.0.0.1:8080}
key=${LOCKSTEP_API_KEY:-lsk_dev_key}
stripe=${STRIPE_API_BASE:-http://127.0.0.1:12111}
stripe_key=${STRIPE_SECRET_KEY:-sk_test_stripesim}
customer=demo-$(date +%s)-$$

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { echo "demo: $*" >&2; exit 1; }

# api METHOD PATH [BODY]: the answer is shown, and left in $answer.
api() {
	local body=()
	[ $# -lt 3 ] || body=(-d "$3")
	echo "  $1 $2 ${3:-}"
	answer=$(curl -sS -X "$1" "$url$2" -H "Authorization: Bearer $key" "${body[@]}") || fail "no gateway at $url: start it with go run ./cmd/lockstep dev"
	echo "  → $answer"
}

# first NAME: the first value of that name in $answer.
first() { grep -o "\"$1\":\"\{0,1\}[^,\"}]*" <<<"$answer" | head -n 1 | sed 's/.*[:"]//'; }

# at_stripe METHOD PATH [PARAMETER...]: what a person would do in Stripe's dashboard.
at_stripe() {
	local method=$1 path=$2 params=()
	shift 2
	for p in "$@"; do params+=(-d "$p"); done
	curl -sS -X "$method" "$stripe$path" -u "$stripe_key:" "${params[@]}"
}

# until WHAT COMMAND...: tries for 20 seconds.
until_true() {
	local what=$1 i
	shift
	for i in $(seq 100); do
		if "$@"; then return; fi
		sleep 0.2
	done
	fail "not within 20 seconds: $what"
}

quietly() { answer=$(curl -sS "$url$1" -H "Authorization: Bearer $key"); }
available_is() { quietly "/v1/wallets/$wallet"; [ "$(first available)" = "$1" ]; }
paused_for() { quietly "/v1/wallets/$wallet/auto_topup"; grep -q "\"reason\":\"$1\"" <<<"$answer"; }
in_step() { quietly "/v1/customers/$customer/lockstep"; [ "$(first state)" = in_step ]; }

# save_card TOKEN: saves a test card as the customer's default in Stripe.
save_card() {
	local pm
	pm=$(at_stripe POST "/v1/payment_methods/$1/attach" "customer=$cus" | grep -o '"id": *"pm_[^"]*' | head -n 1 | sed 's/.*"//')
	[ -n "$pm" ] || fail "Stripe did not attach $1"
	at_stripe POST "/v1/customers/$cus" "invoice_settings[default_payment_method]=$pm" >/dev/null
}

say "A customer, with a saved card in Stripe and 10.00 to spend"
api POST /v1/customers "{\"id\":\"$customer\",\"name\":\"Demo\"}"
cus=$(first stripe_customer)
wallet=$(grep -o 'wal_[0-9a-z]*' <<<"$answer" | head -n 1)
[ -n "$cus" ] && [ -n "$wallet" ] || fail "no customer"
save_card pm_card_visa
api POST /v1/grants "{\"customer\":\"$customer\",\"amount\":\"10\",\"kind\":\"purchased\",\"idempotency_key\":\"$customer-grant\"}"

say "A rule: below 5.00 buy 20.00, at most 60.00 a month"
api PUT "/v1/wallets/$wallet/auto_topup" '{"enabled":true,"threshold":"5","amount":"20","spend_cap":{"amount":6000,"currency":"usd","interval":"month"}}'

say "Usage is debited, exactly once: the same key is answered the same"
api POST /v1/usage "{\"customer\":\"$customer\",\"amount\":\"0.25\",\"idempotency_key\":\"$customer-1\"}"
before=$answer
api POST /v1/usage "{\"customer\":\"$customer\",\"amount\":\"0.25\",\"idempotency_key\":\"$customer-1\"}"
[ "$answer" = "$before" ] || fail "the replay differs"

say "More than there is: refused, and nothing booked"
api POST /v1/usage "{\"customer\":\"$customer\",\"amount\":\"1000\"}"
grep -q insufficient_credits <<<"$answer" || fail "not refused"

say "Below the threshold: the card is charged, and the balance is back"
api POST /v1/usage "{\"customer\":\"$customer\",\"amount\":\"6\"}"
until_true "the refill" available_is 23.75
api GET "/v1/topups?customer=$customer"

say "Stripe shows the same"
until_true "Stripe in step" in_step
api GET "/v1/customers/$customer/lockstep"
at_stripe GET "/v1/customers/$cus" | grep -o '"balance": *-\{0,1\}[0-9]*' | sed 's/^/  at Stripe: /'

say "The card is replaced by one that declines: the rule pauses and says why"
save_card pm_card_chargeCustomerFail
api POST /v1/usage "{\"customer\":\"$customer\",\"amount\":\"20\"}"
until_true "the pause" paused_for payment_failed
api GET "/v1/wallets/$wallet/auto_topup"

say "A good card again: the rule goes on by itself"
save_card pm_card_visa
until_true "the refill" available_is 23.75
until_true "Stripe in step" in_step
api GET "/v1/customers/$customer/lockstep"

say "Every movement"
api GET "/v1/wallets/$wallet/entries"
printf '\nThat was the whole story.\n'
