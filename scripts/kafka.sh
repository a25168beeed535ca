#!/usr/bin/env bash
# A real Apache Kafka broker on this machine for development and tests: KRaft, one process, loopback only.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

libs=$root/.runtime/kafka/libs
log4j=$root/scripts/kafka/log4j2.properties
deadline=${KAFKA_START_SECONDS:-90}
port=9092
directory=

usage() {
    cat <<'USAGE'
usage: scripts/kafka.sh COMMAND

  get                                  download the broker's jars, if they are not there
  start  [--port P] [--directory DIR]  start in the background, wait until it serves, print its address
  run    [--port P] [--directory DIR]  run in the foreground until SIGINT or SIGTERM
  stop   [--port P] [--directory DIR]  stop what start started
  status [--port P] [--directory DIR]  say whether it runs; exit 1 when it does not
  topics ARGS…                         kafka-topics, at 127.0.0.1:9092 unless --bootstrap-server is given
  groups ARGS…                         kafka-consumer-groups, likewise
  tool CLASS ARGS…                     any class of Kafka, such as org.apache.kafka.tools.GetOffsetShell
  classpath                            print the classpath, to start Java yourself

--port defaults to 9092, --directory (data, log and pid file) to .runtime/kafka/data-PORT.
KAFKA_HEAP_OPTS replaces -Xmx1g; JAVA_HOME chooses the Java.
USAGE
}

fail() {
    echo "kafka: $*" >&2
    exit 1
}

# ---- jars ------------------------------------------------------------------------------------------------------

java_command() {
    local java=${JAVA_HOME:+$JAVA_HOME/bin/}java version
    # One line names the version; before it a JVM may say what options it picked up.
    version=$("$java" -version 2>&1 | sed -n 's/^[a-z]* version "\([0-9]*\).*/\1/p') || version=
    [[ -n $version ]] || fail "needs Java 17 or later: apt-get install openjdk-17-jdk-headless"
    ((version >= 17)) || fail "needs Java 17 or later, $java is $version: apt-get install openjdk-17-jdk-headless"
    echo "$java"
}

jars_wanted() {
    cat "$root/scripts/kafka/pom.xml" "$root/scripts/kafka/libs.sha256" | sha256sum
}

jars_present() {
    [[ "$(cat "$libs/.source" 2>/dev/null)" == "$(jars_wanted)" ]]
}

get() {
    jars_present && return
    java_command >/dev/null
    command -v mvn >/dev/null || fail "needs Maven: apt-get install maven"
    mkdir -p "$root/.runtime/kafka"

    # Tests may ask several times at once: one downloads, the others wait for it.
    exec 9>"$root/.runtime/kafka/get.lock"
    flock 9
    jars_present && return

    local temporary
    temporary=$(mktemp -d "$root/.runtime/kafka/libs.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$temporary'" EXIT
    echo "kafka: downloading the jars of Apache Kafka from Maven Central" >&2
    mvn --batch-mode --quiet --file "$root/scripts/kafka/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$temporary" </dev/null 2>&1 |
        sed $'s/\e\\[0m//g' >&2 || # Maven's own farewell to a terminal that is none
        fail "Maven could not download the jars: see its message above; a mirror or proxy is set in Maven's settings.xml"
    (cd "$temporary" && sha256sum --check --quiet --strict "$root/scripts/kafka/libs.sha256") ||
        fail "a jar differs from scripts/kafka/libs.sha256; after a change of pom.xml write that file anew, having read the difference"
    jars_wanted >"$temporary/.source"
    chmod 755 "$temporary"
    rm -rf "$libs"
    mv "$temporary" "$libs"
    trap - EXIT
    flock --unlock 9
    echo "kafka: $(find "$libs" -name '*.jar' | wc -l) jars in .runtime/kafka/libs" >&2
}

# ---- one broker ------------------------------------------------------------------------------------------------

broker_options() {
    given=$*
    while (($#)); do
        case $1 in
        --port) port=${2:?--port needs a number} && shift 2 ;;
        --directory) directory=${2:?--directory needs a folder} && shift 2 ;;
        *)
            usage >&2
            fail "unknown option $1"
            ;;
        esac
    done
    if ! [[ $port =~ ^[0-9]{1,5}$ ]] || ((port < 1 || port > 65535)); then
        fail "--port $port is no port"
    fi
    directory=$(realpath -m "${directory:-$root/.runtime/kafka/data-$port}")
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The pid of this directory's broker, if it runs. A number alone could be another process by now.
broker_pid() {
    local pid
    pid=$(cat "$directory/kafka.pid" 2>/dev/null) || return 1
    [[ -n $pid && -r /proc/$pid/cmdline ]] || return 1
    [[ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" == *"kafka.Kafka $directory/server.properties "* ]] || return 1
    echo "$pid"
}

free_port() {
    local candidate
    for _ in {1..50}; do
        candidate=$((20000 + RANDOM % 12000))
        if ! answers $candidate; then
            echo $candidate
            return
        fi
    done
    fail "found no free port for the controller"
}

prepare() {
    get
    java=$(java_command)
    if answers "$port"; then
        fail "something listens on 127.0.0.1:$port already: stop it, or give another --port"
    fi
    mkdir -p "$directory"
    local controller
    controller=$(free_port)
    cat >"$directory/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$directory/log
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
    if [[ ! -f $directory/log/meta.properties ]]; then
        local cluster
        cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
        "$java" "-Dlog4j2.configurationFile=$log4j" -cp "$libs/*" kafka.tools.StorageTool format \
            --cluster-id "f${cluster:1}" --config "$directory/server.properties" >"$directory/format.log" 2>&1 ||
            fail "could not format $directory/log: $(tail -n 3 "$directory/format.log")"
    fi
    read -ra heap <<<"${KAFKA_HEAP_OPTS:--Xmx1g}"
    command=("$java" "${heap[@]}" -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError
        -Djava.awt.headless=true "-Dlog4j2.configurationFile=$log4j" -cp "$libs/*"
        kafka.Kafka "$directory/server.properties")
}

start() {
    local pid begun=$SECONDS
    if pid=$(broker_pid); then
        echo "kafka: already running, pid $pid" >&2
        sed -n 's/^advertised.listeners=PLAINTEXT:..//p' "$directory/server.properties"
        return
    fi
    prepare
    # A session of its own: the terminal's Ctrl-C is not for it.
    rm -f "$directory/kafka.log" "$directory/kafka.pid"
    # shellcheck disable=SC2016 # expanded by the inner shell
    setsid --fork bash -c 'echo $$ >"$1/kafka.pid"; log=$1/kafka.log; shift; exec "$@" >"$log" 2>&1 </dev/null' \
        kafka "$directory" "${command[@]}" 9>&-
    until grep -q 'Kafka Server started' "$directory/kafka.log" 2>/dev/null && answers "$port"; do
        sleep 0.2
        if ! broker_pid >/dev/null && ((SECONDS - begun > 2)); then
            tail -n 20 "$directory/kafka.log" >&2
            rm -f "$directory/kafka.pid"
            fail "the broker ended at its start: see above and $directory/kafka.log"
        fi
        if ((SECONDS - begun > deadline)); then
            stop
            fail "the broker did not serve within $deadline s (KAFKA_START_SECONDS): see $directory/kafka.log"
        fi
    done
    echo "kafka: serving after $((SECONDS - begun)) s, pid $(broker_pid), stop it with: scripts/kafka.sh stop${given:+ $given}" >&2
    echo "127.0.0.1:$port"
}

stop() {
    local pid begun=$SECONDS
    if ! pid=$(broker_pid); then
        rm -f "$directory/kafka.pid"
        echo "kafka: not running" >&2
        return
    fi
    kill "$pid"
    while broker_pid >/dev/null; do
        if ((SECONDS - begun > 30)); then
            echo "kafka: pid $pid did not end within 30 s: killed" >&2
            kill -KILL "$pid" 2>/dev/null || true
            break
        fi
        sleep 0.1
    done
    rm -f "$directory/kafka.pid"
    echo "kafka: stopped" >&2
}

status() {
    local pid
    pid=$(broker_pid) || fail "not running"
    echo "kafka: running, pid $pid, 127.0.0.1:$port, data in $directory"
}

# ---- tools -----------------------------------------------------------------------------------------------------

tool() {
    (($#)) || fail "tool needs a class, such as org.apache.kafka.tools.GetOffsetShell"
    get
    local java
    java=$(java_command)
    exec "$java" -Xmx256m "-Dlog4j2.configurationFile=$log4j" -cp "$libs/*" "$@"
}

# Adds the default broker where none is named.
tool_at_broker() {
    local class=$1
    shift
    case " $* " in
    *" --bootstrap-server"[\ =]*) tool "$class" "$@" ;;
    *) tool "$class" --bootstrap-server 127.0.0.1:9092 "$@" ;;
    esac
}

action=${1:-}
shift || true
case $action in
start | run | stop | status) broker_options "$@" ;;
esac
case $action in
get) get ;;
classpath)
    get
    echo "$libs/*"
    ;;
start) start ;;
run)
    if pid=$(broker_pid); then fail "already running, pid $pid"; fi
    prepare
    exec "${command[@]}" 9>&-
    ;;
stop) stop ;;
status) status ;;
topics) tool_at_broker org.apache.kafka.tools.TopicCommand "$@" ;;
groups) tool_at_broker org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@" ;;
tool) tool "$@" ;;
"" | help | --help | -h) usage ;;
*)
    usage >&2
    fail "unknown command $action"
    ;;
esac
