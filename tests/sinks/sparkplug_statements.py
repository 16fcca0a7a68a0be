"""The numbered statements of Sparkplug 3.0.0, all 291 of them by their ids (``tck-id-..``), and what shows each.

Ids alone: what they say stands in the specification.
"""

from __future__ import annotations

__all__ = ["NOT_APPLICABLE", "SHOWN"]

# The test that shows it -> the statements.  Those with a host in them hold each message against the rules
# (``sparkplug_host``).
SHOWN: dict[str, str] = {
    "test_sparkplug.test_connect_bears_the_death_and_the_node_is_born_behind_its_subscription": """
        principles-birth-certificates-order
        principles-persistence-clean-session-50
        topics-ncmd-topic
        message-flow-edge-node-ncmd-subscribe
        message-flow-edge-node-birth-publish-connect
        message-flow-edge-node-birth-publish-will-message
        message-flow-edge-node-birth-publish-will-message-topic
        message-flow-edge-node-birth-publish-will-message-payload
        message-flow-edge-node-birth-publish-will-message-qos
        message-flow-edge-node-birth-publish-will-message-will-retained
        payloads-ndeath-will-message
        payloads-ndeath-will-message-qos
        payloads-ndeath-will-message-retain
        payloads-ndeath-bdseq
    """,
    "test_sparkplug.test_close_says_the_death_and_lets_the_broker_say_it": """
        operational-behavior-edge-node-intentional-disconnect-ndeath
        operational-behavior-edge-node-intentional-disconnect-packet
        payloads-ndeath-will-message-publisher
        payloads-ndeath-will-message-publisher-disconnect-mqtt50
    """,
    "test_sparkplug.test_a_number_is_used_by_each_connect_and_by_nothing_else": """
        message-flow-edge-node-birth-publish-will-message-payload-bdSeq
    """,
    "test_sparkplug_session.test_numbers_go_on_over_restarts": """
        topics-nbirth-bdseq-increment
    """,
    "test_sparkplug_mosquitto.test_a_killed_gateway_is_declared_dead": """
        topics-nbirth-bdseq-matching
        topics-ndeath-topic
        message-flow-edge-node-birth-publish-nbirth-payload-bdSeq
        payloads-nbirth-bdseq-repeat
    """,
    "test_sparkplug_payload.test_a_death_byte_by_byte": """
        topics-ndeath-payload
        topics-ndeath-seq
        payloads-ndeath-seq
    """,
    "test_sparkplug_mosquitto.test_nothing_is_published_while_the_primary_host_is_away": """
        message-flow-edge-node-birth-publish-phid-wait
        message-flow-edge-node-birth-publish-phid-wait-id
        message-flow-edge-node-birth-publish-phid-wait-online
        message-flow-edge-node-birth-publish-phid-wait-timestamp
        message-flow-edge-node-birth-publish-phid-offline
        operational-behavior-edge-node-termination-host-offline
        operational-behavior-edge-node-termination-host-offline-reconnect
        operational-behavior-edge-node-termination-host-offline-timestamp
        operational-behavior-primary-application-state-with-multiple-servers-state-subs
        operational-behavior-edge-node-birth-sequence-wait
    """,
    "test_sparkplug_mosquitto.test_a_host_that_asks_in_the_middle_of_data": """
        message-flow-device-birth-publish-nbirth-wait
        operational-behavior-data-commands-rebirth-action-1
        operational-behavior-data-commands-rebirth-action-2
        payloads-dbirth-order
        payloads-ddata-order
    """,
    "test_sparkplug_node.test_a_rebirth_keeps_session_number_values_and_aliases": """
        operational-behavior-data-commands-rebirth-action-3
    """,
    "test_sparkplug_node.test_births_before_data_and_a_death_behind": """
        operational-behavior-device-ddeath
    """,
    "test_sparkplug_node.test_a_new_metric_makes_one_birth_for_a_batch": """
        topics-dbirth-metric-reqs
        topics-ddata-payload
        operational-behavior-data-publish-dbirth
    """,
    "test_sparkplug_node.test_a_new_session_births_all_that_live_with_the_newest_values": """
        operational-behavior-data-publish-dbirth-values
    """,
    "test_sparkplug_node.test_values_of_one_message_are_in_the_order_of_time": """
        operational-behavior-data-publish-dbirth-order
    """,
    "test_sparkplug_node.test_the_sequence_wraps_over_all_messages": """
        topics-dbirth-seq
        topics-ddata-seq-num
        topics-ddeath-seq-num
        message-flow-device-birth-publish-dbirth-payload-seq
        payloads-sequence-num-incrementing
        payloads-dbirth-seq-inc
        payloads-ddata-seq-inc
        payloads-ddeath-seq-inc
    """,
    "test_sparkplug_node.test_types_that_the_host_knows": """
        payloads-metric-datatype-value-type
        payloads-metric-datatype-value
    """,
    "test_sparkplug_payload.test_values_come_back": """
        payloads-timestamp-in-UTC
        payloads-name-requirement
        payloads-alias-birth-requirement
        payloads-alias-data-cmd-requirement
        payloads-name-birth-data-requirement
        payloads-metric-timestamp-in-UTC
        payloads-metric-datatype-req
        payloads-metric-datatype-not-req
    """,
    "test_sparkplug_node.test_any_course_keeps_the_rules": """
        topic-structure-namespace-unique-device-id
        payloads-sequence-num-always-included
        payloads-sequence-num-req-nbirth
        payloads-alias-uniqueness
    """,
    "test_sparkplug_statements.test_names_that_would_break_a_topic_are_refused": """
        topic-structure-namespace-valid-group-id
        topic-structure-namespace-valid-edge-node-id
        topic-structure-namespace-valid-device-id
    """,
    "test_sparkplug_mosquitto.test_a_gateway_and_its_devices": """
        topic-structure
        topic-structure-namespace-a
        topic-structure-namespace-device-id-associated-message-types
        topic-structure-namespace-device-id-non-associated-message-types
        topics-nbirth-topic
        topics-nbirth-mqtt
        topics-nbirth-seq-num
        topics-nbirth-timestamp
        topics-nbirth-metric-reqs
        topics-nbirth-metrics
        topics-nbirth-bdseq-included
        topics-nbirth-rebirth-metric
        topics-dbirth-topic
        topics-dbirth-mqtt
        topics-dbirth-timestamp
        topics-dbirth-metrics
        topics-ddata-topic
        topics-ddata-mqtt
        topics-ddata-timestamp
        topics-ddeath-topic
        topics-ddeath-mqtt
        message-flow-edge-node-birth-publish-nbirth-topic
        message-flow-edge-node-birth-publish-nbirth-payload
        message-flow-edge-node-birth-publish-nbirth-qos
        message-flow-edge-node-birth-publish-nbirth-retained
        message-flow-edge-node-birth-publish-nbirth-payload-seq
        message-flow-device-birth-publish-dbirth-topic
        message-flow-device-birth-publish-dbirth-match-edge-node-topic
        message-flow-device-birth-publish-dbirth-payload
        message-flow-device-birth-publish-dbirth-qos
        message-flow-device-birth-publish-dbirth-retained
        operational-behavior-data-publish-nbirth
        operational-behavior-data-publish-nbirth-values
        operational-behavior-data-publish-nbirth-order
        operational-behavior-data-commands-rebirth-name
        operational-behavior-data-commands-rebirth-name-aliases
        operational-behavior-data-commands-rebirth-datatype
        operational-behavior-data-commands-rebirth-value
        payloads-nbirth-timestamp
        payloads-nbirth-seq
        payloads-nbirth-bdseq
        payloads-nbirth-rebirth-req
        payloads-nbirth-qos
        payloads-nbirth-retain
        payloads-dbirth-timestamp
        payloads-dbirth-seq
        payloads-dbirth-qos
        payloads-dbirth-retain
        payloads-ddata-timestamp
        payloads-ddata-seq
        payloads-ddata-qos
        payloads-ddata-retain
        payloads-ddeath-timestamp
        payloads-ddeath-seq
        payloads-ddeath-seq-number
    """,
}

# Why -> the statements.
NOT_APPLICABLE: dict[str, str] = {
    "about a host application": """
        components-ph-state
        host-topic-phid-birth-message
        host-topic-phid-birth-qos
        host-topic-phid-birth-retain
        host-topic-phid-birth-topic
        host-topic-phid-birth-sub-required
        host-topic-phid-birth-required
        host-topic-phid-birth-payload
        host-topic-phid-birth-payload-timestamp
        host-topic-phid-death-qos
        host-topic-phid-death-retain
        host-topic-phid-death-topic
        host-topic-phid-death-required
        host-topic-phid-death-payload
        host-topic-phid-death-payload-timestamp-connect
        host-topic-phid-death-payload-timestamp-disconnect-clean
        host-topic-phid-death-payload-timestamp-disconnect-with-no-disconnect-packet
        message-flow-phid-sparkplug-clean-session-311
        message-flow-phid-sparkplug-clean-session-50
        message-flow-phid-sparkplug-subscription
        message-flow-phid-sparkplug-state-publish
        message-flow-phid-sparkplug-state-publish-payload
        message-flow-phid-sparkplug-state-publish-payload-timestamp
        message-flow-hid-sparkplug-state-message-delivered
        operational-behavior-edge-node-termination-host-action-ndeath-node-offline
        operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale
        operational-behavior-edge-node-termination-host-action-ndeath-devices-offline
        operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale
        operational-behavior-edge-node-termination-host-action-ddeath-devices-offline
        operational-behavior-edge-node-termination-host-action-ddeath-devices-tags-stale
        operational-behavior-host-reordering-param
        operational-behavior-host-reordering-start
        operational-behavior-host-reordering-rebirth
        operational-behavior-host-reordering-success
        operational-behavior-primary-application-state-with-multiple-servers-state
        operational-behavior-host-application-host-id
        operational-behavior-host-application-connect-will
        operational-behavior-host-application-connect-will-topic
        operational-behavior-host-application-connect-will-payload
        operational-behavior-host-application-connect-will-qos
        operational-behavior-host-application-connect-will-retained
        operational-behavior-host-application-connect-birth
        operational-behavior-host-application-connect-birth-topic
        operational-behavior-host-application-connect-birth-payload
        operational-behavior-host-application-connect-birth-qos
        operational-behavior-host-application-connect-birth-retained
        operational-behavior-host-application-multi-server-timestamp
        operational-behavior-host-application-termination
        operational-behavior-host-application-death-topic
        operational-behavior-host-application-death-payload
        operational-behavior-host-application-death-qos
        operational-behavior-host-application-death-retained
        operational-behavior-host-application-disconnect-intentional
        payloads-state-will-message
        payloads-state-will-message-qos
        payloads-state-will-message-retain
        payloads-state-will-message-payload
        payloads-state-subscribe
        payloads-state-birth
        payloads-state-birth-payload
        conformance-primary-host
    """,
    "about an MQTT server": """
        conformance-mqtt-qos0
        conformance-mqtt-qos1
        conformance-mqtt-will-messages
        conformance-mqtt-retained
        conformance-mqtt-aware-basic
        conformance-mqtt-aware-store
        conformance-mqtt-aware-nbirth-mqtt-topic
        conformance-mqtt-aware-nbirth-mqtt-retain
        conformance-mqtt-aware-dbirth-mqtt-topic
        conformance-mqtt-aware-dbirth-mqtt-retain
        conformance-mqtt-aware-ndeath-timestamp
    """,
    "no templates are sent": """
        topics-nbirth-templates
        payloads-template-definition-nbirth-only
        payloads-template-definition-is-definition
        payloads-template-definition-ref
        payloads-template-definition-members
        payloads-template-definition-nbirth
        payloads-template-definition-parameters
        payloads-template-definition-parameters-default
        payloads-template-instance-is-definition
        payloads-template-instance-ref
        payloads-template-instance-members
        payloads-template-instance-members-birth
        payloads-template-instance-members-data
        payloads-template-instance-parameters
        payloads-template-version
        payloads-template-ref-definition
        payloads-template-ref-instance
        payloads-template-is-definition
        payloads-template-is-definition-definition
        payloads-template-is-definition-instance
        payloads-template-parameter-name-required
        payloads-template-parameter-name-type
        payloads-template-parameter-value-type
        payloads-template-parameter-type-value
        payloads-template-parameter-type-req
        payloads-template-parameter-value
    """,
    "no data sets are sent": """
        payloads-dataset-column-size
        payloads-dataset-column-num-headers
        payloads-dataset-types-def
        payloads-dataset-types-num
        payloads-dataset-types-type
        payloads-dataset-types-value
        payloads-dataset-parameter-type-req
        payloads-template-dataset-value
    """,
    "no property sets are sent": """
        payloads-propertyset-keys-array-size
        payloads-propertyset-values-array-size
        payloads-metric-propertyvalue-type-type
        payloads-metric-propertyvalue-type-value
        payloads-metric-propertyvalue-type-req
        payloads-propertyset-quality-value-type
        payloads-propertyset-quality-value-value
    """,
    "the node has no metrics of its own that change, and sends no NDATA": """
        topics-ndata-topic
        topics-ndata-mqtt
        topics-ndata-seq-num
        topics-ndata-timestamp
        topics-ndata-payload
        operational-behavior-data-publish-nbirth-change
        payloads-ndata-timestamp
        payloads-ndata-seq
        payloads-ndata-seq-inc
        payloads-ndata-order
        payloads-ndata-qos
        payloads-ndata-retain
    """,
    "nothing is set by DCMD, which is not subscribed to": """
        topics-dcmd-topic
        topics-dcmd-mqtt
        topics-dcmd-timestamp
        topics-dcmd-payload
        message-flow-device-dcmd-subscribe
        operational-behavior-data-commands-dcmd-verb
        operational-behavior-data-commands-dcmd-metric-name
        operational-behavior-data-commands-dcmd-metric-value
        payloads-dcmd-timestamp
        payloads-dcmd-seq
        payloads-dcmd-qos
        payloads-dcmd-retain
    """,
    "about who sends an NCMD: a host application": """
        topics-ncmd-mqtt
        topics-ncmd-timestamp
        topics-ncmd-payload
        operational-behavior-data-commands-ncmd-rebirth-verb
        operational-behavior-data-commands-ncmd-rebirth-name
        operational-behavior-data-commands-ncmd-rebirth-value
        operational-behavior-data-commands-ncmd-verb
        operational-behavior-data-commands-ncmd-metric-name
        operational-behavior-data-commands-ncmd-metric-value
        payloads-name-cmd-requirement
        payloads-ncmd-timestamp
        payloads-ncmd-seq
        payloads-ncmd-qos
        payloads-ncmd-retain
    """,
    "MQTT 3.1.1 is not spoken": """
        principles-persistence-clean-session-311
        payloads-ndeath-will-message-publisher-disconnect-mqtt311
    """,
    "up to who gives names to gateways, devices and metrics": """
        topic-structure-namespace-unique-edge-node-descriptor
        topic-structure-namespace-duplicate-device-id-across-edge-node
        case-sensitivity-sparkplug-ids
        case-sensitivity-metric-names
        payloads-nbirth-edge-node-descriptor
    """,
    "up to the devices: what they send is passed on, changed or not": """
        principles-rbe-recommended
        operational-behavior-data-publish-dbirth-change
    """,
    "there is one MQTT server to connect to": """
        operational-behavior-primary-application-state-with-multiple-servers-single-server
        operational-behavior-primary-application-state-with-multiple-servers-walk
    """,
}
