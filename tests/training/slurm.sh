#!/usr/bin/env bash
# Starts a Slurm of one node with two slots on this machine, of Debian's slurmctld, slurmd and munge; needs root.
# Usage: tests/training/slurm.sh FOLDER; then `export SLURM_CONF=FOLDER/slurm.conf`, and FOLDER/stop at the end.
set -euo pipefail
folder=$(realpath "$1")
host=$(hostname -s)
mkdir -p "$folder"/{state,spool}

mkdir -p /run/munge && chown munge: /run/munge
munge --no-input &>/dev/null || runuser -u munge -- munged --force

cat >"$folder/slurm.conf" <<CONF
ClusterName=one_box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((20000 + RANDOM % 10000))
SlurmdPort=$((30000 + RANDOM % 10000))
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
JobRequeue=1
KillWait=20
SchedulerParameters=batch_sched_delay=0,sched_interval=1
AuthInfo=cred_expire=5 # after which a job that was requeued may start again
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
CONF
export SLURM_CONF=$folder/slurm.conf

cat >"$folder/stop" <<STOP
#!/bin/sh
kill -KILL \$(cat $folder/slurmctld.pid $folder/slurmd.pid) 2>/dev/null # slurmd would wait for what it has started
STOP
chmod +x "$folder/stop"

slurmctld
slurmd
for _ in $(seq 100); do
  if sinfo --noheader --format %T 2>/dev/null | grep -q idle; then exit 0; fi
  sleep 0.2
done
tail -n 20 "$folder"/slurm*.log >&2
exit 1
